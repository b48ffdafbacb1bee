//! Hostile values through the programs that read them: pykickstart, Python's shlex, bash.

use std::process::Command;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use rekindle::escape::{KsWord, ShWord};
use serde_json::{Value, json};

use rekindle::media::Release;

use super::{FIELDS, rendered_for, value};
use crate::render::tools::{ksvalidator, output_of};
use crate::render::version;

/// The same values every time: a failure here is found again.
fn values(count: usize) -> Vec<String> {
    let mut runner = TestRunner::deterministic();
    let mut draw = || value().new_tree(&mut runner).expect("a value").current();
    (0..count).map(|_| draw()).collect()
}

/// Asks one Python process for everything.
fn python(version: &str, kickstarts: &[String], words: &[(String, String)]) -> Option<Value> {
    let python = ksvalidator()?.with_file_name("python3");
    let order = json!({ "version": version, "kickstarts": kickstarts, "words": words });
    let mut command = Command::new(python);
    command.arg("tests/it/hostile/shape.py");
    let output = output_of(&mut command, &order.to_string());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}

#[test]
fn pykickstart_sees_the_same_commands_whatever_the_values() {
    for release in Release::ALL {
        same_commands(release, version(release));
    }
}

fn same_commands(release: Release, version: &str) {
    // The texts differ little between releases: one is tried with many values, the others with some.
    let enough = if release == Release::El9 { 201 } else { 41 };
    let rendered = |field: &str, value: &str| rendered_for(release, field, value);
    let usual = rendered("user", "mpi").expect("renders").expect("accepted").kickstart;
    let (mut names, mut kickstarts) = (vec!["usual".to_owned()], vec![usual.clone()]);
    let unseen = ["uplink", "interface", "workers", "tree", "repo", "gpg_key", "role"];
    let fields = FIELDS.map(|(field, ..)| field);
    let mut fields = fields.into_iter().filter(|field| !unseen.contains(field)).cycle();
    for value in values(3600) {
        let field = fields.next().expect("a field");
        let Some(hostile) = rendered(field, &value).expect("renders") else { continue };
        if hostile.kickstart != usual && kickstarts.len() < enough {
            names.push(format!("{field} = {value:?}"));
            kickstarts.push(hostile.kickstart);
        }
    }
    assert_eq!(kickstarts.len(), enough, "enough values are accepted to mean something");
    let Some(told) = python(version, &kickstarts, &[]) else { return };
    let shapes = told["shapes"].as_array().expect("shapes");
    assert!(shapes[0]["commands"].as_array().is_some_and(|list| list.len() > 15), "{}", shapes[0]);
    for (name, shape) in names.iter().zip(shapes) {
        assert_eq!(shape, &shapes[0], "{release}: {name}");
    }
}

#[test]
fn shlex_reads_every_word_as_its_value() {
    let words = values(2000).into_iter().filter_map(|value| {
        let word = KsWord::new("field", &value).ok()?.to_string();
        Some((word, value))
    });
    let words: Vec<_> = words.collect();
    assert!(words.len() > 500, "{}", words.len());
    let Some(told) = python("RHEL9", &[], &words) else { return };
    assert_eq!(told["words"], json!([]));
}

#[test]
fn bash_hands_every_word_on_as_its_value() {
    let words = values(2000).into_iter().filter_map(|value| {
        let word = ShWord::new("field", &value).ok()?.to_string();
        Some((word, value))
    });
    let (words, values): (Vec<_>, Vec<_>) = words.unzip();
    assert!(words.len() > 500, "{}", words.len());
    let script: String = words.iter().map(|word| format!("printf '%s\\0' {word}\n")).collect();
    let output = output_of(Command::new("bash").arg("/dev/stdin").env_clear(), &script);
    let expected: String = values.iter().map(|value| format!("{value}\0")).collect();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.stdout == expected.as_bytes() && text.is_empty(), "{text}");
}
