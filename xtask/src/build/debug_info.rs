//! Takes out of an object what only debuggers read.
//!
//! The linker has made BTF of it, which is what the kernel and bpftool read. It would be three quarters of what the
//! program embeds.

use anyhow::{Context, Result};

/// Fields of the header of a file (<https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html>): where the headers of
/// the sections are, how many, and which section has their names.
const TABLE: usize = 40;
const N_SECTIONS: usize = 60;
const NAMES: usize = 62;
const HEADER_LEN: usize = 64;
/// Fields of the header of a section.
const NAME: usize = 0;
const TYPE: usize = 4;
const OFFSET: usize = 24;
const SIZE: usize = 32;
const ALIGNMENT: usize = 48;
const SECTION_LEN: usize = 64;
/// The type of a section that has nothing in the file.
const NOBITS: u32 = 8;

/// Returns an object of 64 bits, little-endian, without what is for debuggers. Their sections stay, empty, so that what
/// has a number keeps it.
///
/// # Errors
/// When the object is another, or contradicts itself.
pub(super) fn without(object: &[u8]) -> Result<Vec<u8>> {
    let stripped = object
        .starts_with(b"\x7fELF\x02\x01")
        .then(|| stripped(object))
        .flatten();
    stripped.context("the linker made no whole object of 64 bits, little-endian")
}

fn stripped(object: &[u8]) -> Option<Vec<u8>> {
    let table = usize::try_from(long(object, TABLE)?).ok()?;
    let len = usize::from(half(object, N_SECTIONS)?) * SECTION_LEN;
    let mut sections: Vec<Vec<u8>> = object
        .get(table..table.checked_add(len)?)?
        .chunks_exact(SECTION_LEN)
        .map(<[u8]>::to_vec)
        .collect();
    let names = content(object, sections.get(usize::from(half(object, NAMES)?))?)?;
    let mut out = object.get(..HEADER_LEN)?.to_vec();
    for section in &mut sections {
        let name = names.get(usize::try_from(word(section, NAME)?).ok()?..)?;
        let content = if [&b".debug_"[..], b".rel.debug_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            &[]
        } else {
            content(object, section)?
        };
        let alignment = usize::try_from(long(section, ALIGNMENT)?).ok()?.max(1);
        out.resize(out.len().next_multiple_of(alignment), 0);
        section[OFFSET..OFFSET + 8].copy_from_slice(&(out.len() as u64).to_le_bytes());
        if word(section, TYPE)? != NOBITS {
            section[SIZE..SIZE + 8].copy_from_slice(&(content.len() as u64).to_le_bytes());
        }
        out.extend_from_slice(content);
    }
    out.resize(out.len().next_multiple_of(8), 0);
    let table = out.len() as u64;
    out[TABLE..TABLE + 8].copy_from_slice(&table.to_le_bytes());
    out.extend(sections.concat());
    Some(out)
}

/// Returns what a section has in the file.
fn content<'a>(object: &'a [u8], section: &[u8]) -> Option<&'a [u8]> {
    if word(section, TYPE)? == NOBITS {
        return Some(&[]);
    }
    let start = usize::try_from(long(section, OFFSET)?).ok()?;
    let len = usize::try_from(long(section, SIZE)?).ok()?;
    object.get(start..start.checked_add(len)?)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with sections, each by its name, type and content; the names are the last one.
    fn object(sections: &[(&str, u32, &[u8])]) -> Vec<u8> {
        let names: String = sections.iter().map(|(name, ..)| format!("{name}\0")).collect();
        let mut out = vec![0; HEADER_LEN];
        out[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let mut table = Vec::new();
        let mut name_at = 0_u32;
        for (name, kind, content) in sections {
            let content = if *name == ".strtab" {
                names.as_bytes()
            } else {
                content
            };
            let mut header = [0; SECTION_LEN];
            header[NAME..NAME + 4].copy_from_slice(&name_at.to_le_bytes());
            header[TYPE..TYPE + 4].copy_from_slice(&kind.to_le_bytes());
            header[OFFSET..OFFSET + 8].copy_from_slice(&(out.len() as u64).to_le_bytes());
            header[SIZE..SIZE + 8].copy_from_slice(&(content.len() as u64).to_le_bytes());
            header[ALIGNMENT] = 8;
            table.extend(header);
            out.extend_from_slice(content);
            name_at += u32::try_from(name.len()).unwrap() + 1;
        }
        let (at, n_sections) = (out.len() as u64, u16::try_from(sections.len()).unwrap());
        out[TABLE..TABLE + 8].copy_from_slice(&at.to_le_bytes());
        out[N_SECTIONS..N_SECTIONS + 2].copy_from_slice(&n_sections.to_le_bytes());
        out[NAMES..NAMES + 2].copy_from_slice(&(n_sections - 1).to_le_bytes());
        out.extend(table);
        out
    }

    fn sections(object: &[u8]) -> Vec<Vec<u8>> {
        let table = usize::try_from(long(object, TABLE).unwrap()).unwrap();
        let headers = object[table..].chunks_exact(SECTION_LEN);
        headers
            .map(|header| content(object, header).unwrap().to_vec())
            .collect()
    }

    #[test]
    fn all_but_what_is_for_debuggers_stays_in_its_place() {
        let names = b".debug_info\0classifier\0.rel.debug_info\0.BTF\0.bss\0.strtab\0";
        let object = object(&[
            (".debug_info", 1, b"of functions"),
            ("classifier", 1, b"code"),
            (".rel.debug_info", 9, b"of those"),
            (".BTF", 1, b"types"),
            (".bss", NOBITS, b""),
            (".strtab", 3, b""),
        ]);

        let stripped = without(&object).unwrap();

        let expected: [&[u8]; 6] = [b"", b"code", b"", b"types", b"", names];
        assert_eq!(sections(&stripped), expected);
        assert!(stripped.len() < object.len());
        assert_eq!(without(&stripped).unwrap(), stripped);
    }

    #[test]
    fn what_is_no_whole_object_is_an_error() {
        let object = object(&[("classifier", 1, b"code"), (".strtab", 3, b"")]);

        assert!(without(&object).is_ok());
        for len in 0..object.len() {
            assert!(without(&object[..len]).is_err(), "{len}");
        }
    }
}
