//! The manual page of the configuration, made of the documents that say the same.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};

const FIELDS: &str = "Fields";
const RELOAD: &str = "Change a running node";
const FENCE: &str = "```";

/// Returns `stream-router.toml(5)` in roff: fields and example of `configuration.md`, and what `operations.md` says of a
/// reload.
///
/// # Errors
/// When a document lacks what is taken of it.
pub(super) fn page(configuration: &str, operations: &str) -> Result<String> {
    let example = configuration.split(FENCE).nth(1);
    let example = example.and_then(|block| block.strip_prefix("toml\n"));
    let example = example.context("configuration.md does not begin with an example")?;
    let reload = section(operations, RELOAD).context("operations.md does not say what a reload does")?;
    let fields = section(configuration, FIELDS).unwrap_or_default();
    let table: Vec<_> = fields
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(cells)
        .collect();
    ensure!(
        !table.is_empty() && table.iter().all(|row| row.len() == 3),
        "configuration.md has no table of three columns below \"## {FIELDS}\""
    );
    let mut page = String::from(
        ".TH STREAM\\-ROUTER.TOML 5 \"\" \"Stream Router\" \"\"\n\
         .SH NAME\nstream\\-router.toml \\- configuration of a Stream Router node\n\
         .SH DESCRIPTION\n\
         A TOML file with the sections below; \\fB[[gateway]]\\fR and \\fB[[peer]]\\fR may be there several times. Unknown \
         fields are errors. \\fBstream\\-router check\\fR finds every mistake. The service reads \
         \\fI/etc/stream\\-router.toml\\fR.\n\
         .SH FIELDS\n",
    );
    for row in table {
        let [field, default, meaning] = &row[..] else {
            continue;
        };
        let default = match default.as_str() {
            "required" => "required".to_owned(),
            default => format!("default: {}", inline(default)),
        };
        let _ = writeln!(page, ".TP\n{}\n{}.\n({default})", inline(field), inline(meaning));
    }
    let _ = write!(page, ".SH RELOAD\n{}", blocks(reload));
    let _ = write!(page, ".SH EXAMPLE\n{}", code(example));
    page.push_str(
        ".SH \"SEE ALSO\"\n\\fBstream\\-router\\fR(1), \\fBstream\\-router\\-check\\fR(1), \
         \\fBstream\\-router\\-reload\\fR(1)\n",
    );
    Ok(page)
}

/// Returns what stands below a heading of the second level.
fn section<'a>(document: &'a str, heading: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("\n## {heading}\n"))?;
    Some(rest.split("\n## ").next().unwrap_or(rest))
}

/// Returns paragraphs, lists and code of Markdown in roff.
fn blocks(markdown: &str) -> String {
    let mut roff = String::new();
    for (index, part) in markdown.split(FENCE).enumerate() {
        if index % 2 == 1 {
            // After what language it is.
            roff += &code(part.split_once('\n').map_or("", |(_, lines)| lines));
            continue;
        }
        for paragraph in part.split("\n\n").map(str::trim).filter(|text| !text.is_empty()) {
            let Some(list) = paragraph.strip_prefix("- ") else {
                let _ = writeln!(roff, ".PP\n{}", inline(paragraph));
                continue;
            };
            for item in list.split("\n- ") {
                let _ = writeln!(roff, ".IP \\(bu 2\n{}", inline(item));
            }
        }
    }
    roff
}

/// Returns lines that stay as they are, in roff.
fn code(lines: &str) -> String {
    let mut roff = String::from(".PP\n.RS 4\n.nf\n");
    for line in lines.lines() {
        let _ = writeln!(roff, "\\&{}", escaped(line));
    }
    roff.push_str(".fi\n.RE\n");
    roff
}

/// Returns the cells of a row; `\|` is no border.
fn cells(row: &str) -> Vec<String> {
    const BAR: &str = "\u{0}";
    let row = row.replace("\\|", BAR);
    let row = row.trim().trim_matches('|');
    row.split('|').map(|cell| cell.trim().replace(BAR, "|")).collect()
}

/// Returns a paragraph of Markdown in roff, on one line: code in bold, of links what they are called, the rest as it is.
fn inline(markdown: &str) -> String {
    let mut roff = String::new();
    for (index, part) in markdown.split('`').enumerate() {
        match index % 2 {
            0 => roff += &escaped(&without_targets(part).replace("\n  ", "\n").replace('\n', " ")),
            _ => roff += &format!("\\fB{}\\fR", escaped(part)),
        }
    }
    // A dot or quote that begins a line would begin a request.
    if roff.starts_with(['.', '\'']) {
        roff.insert_str(0, "\\&");
    }
    roff
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// Returns the text with `[name](target)` as `name`.
fn without_targets(text: &str) -> String {
    let mut parts = text.split("](");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        if let Some(start) = plain.rfind('[') {
            plain.remove(start);
        }
        plain += part.split_once(')').map_or("", |(_, rest)| rest);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURATION: &str = "# Configuration\n\n```toml\n[a]\nmin = 1 # it's least\n```\n\n## Fields\n\n\
        | field | default | meaning |\n|---|---|---|\n\
        | `a.min`, `a.max` | 1, by [memory](operations.md#memory) | bounds: `x\\|y` |\n| `b.key` | required | a-b |\n\n\
        After.\n";
    const OPERATIONS: &str = "# Operations\n\n## Change a running node\n\nThese\ntake effect:\n\n\
        - `a.min`,\n- the [rest](x.md) of\n  it.\n\n```console\n$ sudo reload\n.done\n```\n\n## Hooks\n\nNot this.\n";

    fn of_page(heading: &str) -> String {
        let page = page(CONFIGURATION, OPERATIONS).unwrap();
        let (_, section) = page.split_once(&format!(".SH {heading}\n")).unwrap();
        section.split_once(".SH").unwrap().0.to_owned()
    }

    #[test]
    fn each_field_of_the_document_has_an_entry() {
        assert_eq!(
            of_page("FIELDS"),
            ".TP\n\\fBa.min\\fR, \\fBa.max\\fR\nbounds: \\fBx|y\\fR.\n(default: 1, by memory)\n\
             .TP\n\\fBb.key\\fR\na\\-b.\n(required)\n"
        );
    }

    #[test]
    fn the_page_says_what_a_reload_does() {
        assert_eq!(
            of_page("RELOAD"),
            ".PP\nThese take effect:\n.IP \\(bu 2\n\\fBa.min\\fR,\n.IP \\(bu 2\nthe rest of it.\n\
             .PP\n.RS 4\n.nf\n\\&$ sudo reload\n\\&.done\n.fi\n.RE\n"
        );
    }

    #[test]
    fn the_page_has_the_example_as_it_is() {
        assert_eq!(
            of_page("EXAMPLE"),
            ".PP\n.RS 4\n.nf\n\\&[a]\n\\&min = 1 # it's least\n.fi\n.RE\n"
        );
    }

    #[test]
    fn a_document_that_lacks_something_is_an_error() {
        for (wrong, operations) in [
            (CONFIGURATION.replace("toml", ""), OPERATIONS),
            (CONFIGURATION.replace("|", ""), OPERATIONS),
            (CONFIGURATION.to_owned(), "## Hooks\n"),
        ] {
            assert!(page(&wrong, operations).is_err(), "{wrong}{operations}");
        }
    }
}
