use std::io::Write;

use proptest::prelude::*;

use super::*;

/// As createrepo_c 0.17 writes it.
pub(crate) const REPOMD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<repomd xmlns="http://linux.duke.edu/metadata/repo" xmlns:rpm="http://linux.duke.edu/metadata/rpm">
  <revision>1795751745</revision>
  <data type="primary">
    <checksum type="sha256">8b3e732efc71d79ecb9172e3f5d086527c523f67144bd7b30c9733272b6d5b0d</checksum>
    <open-checksum type="sha256">325c87472b3f9096519d44fa7761d30f33b8a6d0b5e0588c9961eea5fde8d400</open-checksum>
    <location href="repodata/8b3e-primary.xml.gz"/>
    <timestamp>1795751745</timestamp>
    <size>42009</size>
    <open-size>394939</open-size>
  </data>
  <data type="modules">
    <checksum type="sha">00</checksum>
    <location href="repodata/modules.yaml.gz"/>
    <size>7</size>
  </data>
</repomd>
"#;

const PRIMARY: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="2">
<package type="rpm">
  <name>bash</name>
  <arch>x86_64</arch>
  <checksum type="sha256" pkgid="YES">AB12</checksum>
  <size package="1234" installed="5" archive="6"/>
  <location href="Packages/b/bash-5.1.8-9.el9.x86_64.rpm"/>
  <format><rpm:provides><rpm:entry name="size"/></rpm:provides><file>/bin/bash</file></format>
</package>
<package type="rpm">
  <name>a&amp;b</name>
  <checksum type="sha">ff</checksum>
  <size package="7" installed="5" archive="6"/>
  <location href="Packages/a%26b.rpm"/>
</package>
</metadata>
"#;

fn expected() -> Vec<Entry> {
    vec![
        Entry {
            path: "Packages/b/bash-5.1.8-9.el9.x86_64.rpm".to_owned(),
            size: Some(1234),
            sha256: Some("ab12".to_owned()),
        },
        Entry { path: "Packages/a%26b.rpm".to_owned(), size: Some(7), sha256: None },
    ]
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    packed.write_all(text).expect("packed");
    packed.finish().expect("packed")
}

#[test]
fn an_index_names_its_files_with_length_and_sum() {
    let index = repomd(REPOMD.as_bytes()).expect("index");
    assert_eq!(index.primary.path, "repodata/8b3e-primary.xml.gz");
    assert_eq!(index.primary.size, Some(42009));
    assert!(index.primary.sha256.as_deref().expect("sum").starts_with("8b3e732e"));
    assert_eq!(index.files.len(), 2);
    assert_eq!((index.files[1].size, &index.files[1].sha256), (Some(7), &None));
}

#[test]
fn packages_are_listed_however_they_are_packed() {
    assert_eq!(packages("x/primary.xml", PRIMARY.as_bytes()), Ok(expected()));
    assert_eq!(packages("x/primary.xml.gz", &gzip(PRIMARY.as_bytes())[..]), Ok(expected()));
    let zstd = ruzstd::encoding::compress_to_vec(
        PRIMARY.as_bytes(),
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    assert_eq!(packages("x/primary.xml.zst", &zstd[..]), Ok(expected()));
    let packing = packages("x/primary.xml.bz2", PRIMARY.as_bytes());
    assert_eq!(packing, Err(BadIndex::Packing("x/primary.xml.bz2".to_owned())));
    let none = "<metadata packages=\"0\"></metadata>";
    assert_eq!(packages("primary.xml", none.as_bytes()), Ok(vec![]));
}

#[test]
fn what_is_no_index_is_refused_in_words() {
    for text in ["", "<repomd></repomd>", "nonsense", "<repomd><data type=\"primary\"></repomd>"] {
        assert!(repomd(text.as_bytes()).is_err(), "{text}");
    }
    for path in ["../x.gz", "/etc/shadow", "a//b", "a/./b", "", "a&#10;b"] {
        let text =
            format!("<repomd><data type=\"primary\"><location href=\"{path}\"/></data></repomd>");
        assert!(
            matches!(repomd(text.as_bytes()), Err(BadIndex::Path(_) | BadIndex::NoPrimary)),
            "{path}"
        );
    }
    let cut = gzip(PRIMARY.as_bytes());
    assert!(packages("primary.xml.gz", &cut[..cut.len() / 2]).is_err());
    // Links and entities of its own do nothing.
    let bomb = "<!DOCTYPE x [<!ENTITY a \"b\">]><metadata><package><location href=\"&a;\"/></package></metadata>";
    assert!(packages("primary.xml", bomb.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn any_bytes_end_in_a_list_or_a_word(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(repomd(&bytes));
        for name in ["p.xml", "p.xml.gz", "p.xml.zst"] {
            drop(packages(name, &bytes[..]));
        }
    }

    #[test]
    fn any_damage_ends_in_a_list_or_a_word(at in 0..REPOMD.len(), byte in any::<u8>()) {
        let mut bytes = REPOMD.as_bytes().to_vec();
        bytes[at] = byte;
        if let Ok(index) = repomd(&bytes) {
            prop_assert!(index.files.iter().all(|file| !file.path.contains("..") && !file.path.starts_with('/')));
        }
    }
}
