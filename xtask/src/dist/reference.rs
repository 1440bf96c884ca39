//! The manual page of the configuration, made of the table in its document.

use std::fmt::Write;

use anyhow::{Result, ensure};

const HEADING: &str = "## Fields";

/// Returns `stream-router.toml(5)` in roff, from the text of `configuration.md`.
///
/// # Errors
/// When the document has no table of fields where it should.
pub(super) fn page(document: &str) -> Result<String> {
    let section = document.split_once(HEADING).map_or("", |(_, section)| section);
    let table: Vec<_> = section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(cells)
        .collect();
    ensure!(
        !table.is_empty() && table.iter().all(|row| row.len() == 3),
        "configuration.md has no table of three columns below \"{HEADING}\""
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
    page.push_str(".SH \"SEE ALSO\"\n\\fBstream\\-router\\fR(1), \\fBstream\\-router\\-check\\fR(1)\n");
    Ok(page)
}

/// Returns the cells of a row; `\|` is no border.
fn cells(row: &str) -> Vec<String> {
    const BAR: &str = "\u{0}";
    let row = row.replace("\\|", BAR);
    let row = row.trim().trim_matches('|');
    row.split('|').map(|cell| cell.trim().replace(BAR, "|")).collect()
}

/// Returns a line of Markdown in roff: code in bold, the rest as it is.
fn inline(markdown: &str) -> String {
    let mut roff = String::new();
    for (index, part) in markdown.split('`').enumerate() {
        let part = part.replace('\\', "\\e").replace('-', "\\-");
        match index % 2 {
            0 => roff += &part,
            _ => roff += &format!("\\fB{part}\\fR"),
        }
    }
    // A dot or quote that begins a line would begin a request.
    if roff.starts_with(['.', '\'']) {
        roff.insert_str(0, "\\&");
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_of_the_document_has_an_entry() {
        let document = "## Fields\n\n| field | default | meaning |\n|---|---|---|\n\
            | `a.min`, `a.max` | 1, 10 | bounds: `x\\|y` |\n| `b.key` | required | a-b |\n\nAfter.\n";

        let page = page(document).unwrap();

        let fields = page.split_once(".SH FIELDS\n").unwrap().1;
        assert_eq!(
            fields.split_once(".SH").unwrap().0,
            ".TP\n\\fBa.min\\fR, \\fBa.max\\fR\nbounds: \\fBx|y\\fR.\n(default: 1, 10)\n\
             .TP\n\\fBb.key\\fR\na\\-b.\n(required)\n"
        );
    }

    #[test]
    fn a_document_without_the_table_is_an_error() {
        assert!(page("## Fields\n\nNothing.\n").is_err());
    }
}
