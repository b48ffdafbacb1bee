//! The one place that prints: data to stdout, words to stderr.

use std::io::{self, Write};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

/// Prints lines.
pub(super) fn text(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') && !text.is_empty() {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Prints JSON for a script.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    text(&serde_json::to_string_pretty(value)?)
}

/// A word to the person, beside the data.
pub(super) fn note(text: &str) {
    // Nobody is there to hear it: nothing to be done.
    writeln!(io::stderr(), "{text}").unwrap_or_default();
}

/// Does something that may take long; after two seconds `words`, told how many have gone by, say how it is going.
pub(super) fn patiently<T: Send>(
    words: impl Fn(u64) -> String + Send,
    work: impl FnOnce() -> T + Send,
) -> T {
    std::thread::scope(|scope| {
        let (done, waits) = mpsc::channel::<()>();
        scope.spawn(move || {
            let begun = crate::journal::now_ms();
            let mut pause = Duration::from_secs(2);
            while waits.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
                note(&words(crate::journal::now_ms().saturating_sub(begun) / 1000));
                pause = Duration::from_secs(5);
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// Asks a person; only a clear yes is one.
pub(super) fn ask(question: &str) -> anyhow::Result<bool> {
    note(&format!("{question} [y/N]"));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// An error: one line for each thing that is wrong.
pub(super) fn error(error: &anyhow::Error) {
    for line in format!("{error:#}").lines() {
        note(&format!("rekindle: {line}"));
    }
}

/// `rekindle log | head` is no failure.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Aligned columns with a head.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|&word| word.to_owned()).collect();
    let all = || std::iter::once(&head).chain(rows);
    let width = |column: usize| {
        all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    all().fold(String::new(), |mut text, row| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
        text
    })
}

/// A moment as people and scripts read it.
pub(super) fn time(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    at.map_or_else(|| "-".to_owned(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}
