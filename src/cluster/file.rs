//! `cluster.toml` as typed: tables and keys with the lines they stand on.
//!
//! A walk over the document rather than a derive, so that every mistake in the file is found at
//! once, each with its line.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml_edit::{Document, Item, TableLike, Value};

/// One mistake: where it is, what it is and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Line of the file, from 1.
    pub line: usize,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// Everything that is wrong with a file, in the order of its lines. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Findings {
    /// The file.
    pub file: PathBuf,
    /// Its mistakes.
    pub list: Vec<Finding>,
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.list.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{}:{}: {}", self.file.display(), finding.line, finding.message)?;
        }
        Ok(())
    }
}

/// Reads a document and gathers what is wrong with it.
#[derive(Debug)]
pub(super) struct Reader<'d> {
    text: &'d str,
    findings: Vec<Finding>,
}

/// A table of the document whose keys are taken out one by one; what is left over is unknown.
#[derive(Debug)]
pub(super) struct Table<'d> {
    /// How messages call it, like `[network]` or ``node `worker1` ``.
    pub(super) place: String,
    pub(super) line: usize,
    items: BTreeMap<&'d str, At<&'d Item>>,
    asked: Vec<&'static str>,
}

/// A value and the line it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) line: usize,
    pub(super) value: T,
}

/// Takes the bytes of a file as text, or says on which line they are none: editors of old write
/// umlauts in other ways.
pub fn utf8(bytes: Vec<u8>, file: &Path) -> Result<String, Findings> {
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        let message = "this is not UTF-8; save the file in that encoding".to_owned();
        Findings { file: file.to_owned(), list: vec![Finding { line, message }] }
    })
}

/// Parses the text, or says on which line it is no TOML.
pub(super) fn document<'d>(text: &'d str, file: &Path) -> Result<Document<&'d str>, Findings> {
    Document::parse(text).map_err(|error| {
        let line = line_of(text, error.span());
        let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        let message = format!("this is not TOML: {message}");
        Findings { file: file.to_owned(), list: vec![Finding { line, message }] }
    })
}

fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let end = span.map_or(0, |span| span.start).min(text.len());
    1 + text.bytes().take(end).filter(|byte| *byte == b'\n').count()
}

impl<'d> Reader<'d> {
    pub(super) fn new(text: &'d str) -> Self {
        Self { text, findings: vec![] }
    }

    /// Notes a mistake.
    pub(super) fn wrong(&mut self, line: usize, message: impl Into<String>) {
        self.findings.push(Finding { line, message: message.into() });
    }

    /// All mistakes by line; `None` when there are none.
    pub(super) fn findings(mut self, file: &Path) -> Option<Findings> {
        self.findings.sort();
        self.findings.dedup();
        let file = file.to_owned();
        (!self.findings.is_empty()).then_some(Findings { file, list: self.findings })
    }

    pub(super) fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Opens a table.
    pub(super) fn table(
        &self,
        place: impl Into<String>,
        line: usize,
        table: &'d dyn TableLike,
    ) -> Table<'d> {
        let items = table
            .iter()
            .map(|(key, item)| {
                let span = table.key(key).and_then(toml_edit::Key::span).or_else(|| item.span());
                (key, At { line: line_of(self.text, span), value: item })
            })
            .collect();
        Table { place: place.into(), line, items, asked: vec![] }
    }

    /// Takes a sub-table.
    pub(super) fn sub(&mut self, table: &mut Table<'d>, key: &'static str) -> Option<Table<'d>> {
        let item = table.take(key)?;
        let Some(inner) = item.value.as_table_like() else {
            self.wrong(item.line, format!("`{key}` must be a table; write [{key}]"));
            return None;
        };
        Some(self.table(format!("[{key}]"), item.line, inner))
    }

    /// Takes every table of `[key.NAME]`.
    pub(super) fn named(
        &mut self,
        table: &mut Table<'d>,
        key: &'static str,
    ) -> Vec<(&'d str, Table<'d>)> {
        let Some(outer) = self.sub(table, key) else { return vec![] };
        let mut found = vec![];
        for (name, item) in outer.items {
            match item.value.as_table_like() {
                Some(inner) => {
                    found.push((name, self.table(format!("[{key}.{name}]"), item.line, inner)));
                }
                None => {
                    let name: String = name.chars().take(60).collect();
                    let name = name.escape_debug();
                    self.wrong(item.line, format!("`{name}` must be a table; write [{key}.NAME]"));
                }
            }
        }
        found
    }

    /// Takes every table of `[[key]]`.
    pub(super) fn array(&mut self, table: &mut Table<'d>, key: &'static str) -> Vec<Table<'d>> {
        let Some(item) = table.take(key) else { return vec![] };
        let line = |span| line_of(self.text, span);
        match item.value {
            Item::ArrayOfTables(tables) => tables
                .iter()
                .map(|inner| self.table(format!("[[{key}]]"), line(inner.span()), inner))
                .collect(),
            Item::Value(Value::Array(values)) if values.iter().all(Value::is_inline_table) => {
                values
                    .iter()
                    .filter_map(|value| Some((value.as_inline_table()?, line(value.span()))))
                    .map(|(inner, line)| self.table(format!("[[{key}]]"), line, inner))
                    .collect()
            }
            Item::None | Item::Value(_) | Item::Table(_) => {
                self.wrong(item.line, format!("`{key}` must be a list of tables; write [[{key}]]"));
                vec![]
            }
        }
    }

    /// Takes a text.
    pub(super) fn text(&mut self, table: &mut Table<'d>, key: &'static str) -> Option<At<&'d str>> {
        let item = table.take(key)?;
        let text = item.value.as_str();
        if text.is_none() {
            self.wrong(item.line, format!("`{key}` must be a text; write {key} = \"…\""));
        }
        text.map(|text| At { line: item.line, value: text })
    }

    /// Takes a text that must be there.
    pub(super) fn needed(
        &mut self,
        table: &mut Table<'d>,
        key: &'static str,
        like: &str,
    ) -> Option<At<&'d str>> {
        if !table.has(key) {
            let (line, place) = (table.line, table.place.clone());
            table.asked.push(key);
            self.wrong(line, format!("{place} lacks `{key}`; add {key} = \"{like}\""));
            return None;
        }
        self.text(table, key)
    }

    /// Takes a whole number within bounds.
    pub(super) fn number(
        &mut self,
        table: &mut Table<'d>,
        key: &'static str,
        bounds: std::ops::RangeInclusive<u32>,
    ) -> Option<At<u32>> {
        let item = table.take(key)?;
        let number = item.value.as_integer().and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| bounds.contains(number));
        if number.is_none() {
            let (low, high) = bounds.into_inner();
            let found = self.source(item.value.span());
            self.wrong(
                item.line,
                format!("`{key}` is {found}; it must be a whole number from {low} to {high}"),
            );
        }
        number.map(|number| At { line: item.line, value: number })
    }

    /// Takes true or false.
    pub(super) fn flag(&mut self, table: &mut Table<'d>, key: &'static str) -> Option<At<bool>> {
        let item = table.take(key)?;
        let flag = item.value.as_bool();
        if flag.is_none() {
            let found = self.source(item.value.span());
            self.wrong(item.line, format!("`{key}` is {found}; it must be true or false"));
        }
        flag.map(|value| At { line: item.line, value })
    }

    /// Takes a list of texts.
    pub(super) fn list(
        &mut self,
        table: &mut Table<'d>,
        key: &'static str,
    ) -> Option<At<Vec<At<&'d str>>>> {
        let item = table.take(key)?;
        let Some(values) = item.value.as_array() else {
            self.wrong(item.line, format!("`{key}` must be a list; write {key} = [\"…\"]"));
            return None;
        };
        let mut list = vec![];
        for value in values {
            let line = line_of(self.text, value.span());
            match value.as_str() {
                Some(text) => list.push(At { line, value: text }),
                None => {
                    let found = self.source(value.span());
                    self.wrong(
                        line,
                        format!("`{key}` holds {found}; it must hold texts in quotes"),
                    );
                }
            }
        }
        Some(At { line: item.line, value: list })
    }

    /// The value as the owner wrote it, cut to a line.
    fn source(&self, span: Option<Range<usize>>) -> String {
        let text = self.text.get(span.unwrap_or_default()).unwrap_or_default();
        text.lines().next().unwrap_or_default().chars().take(60).collect()
    }

    /// Complains of every key that nobody took.
    pub(super) fn finish(&mut self, table: Table<'d>) {
        for (key, item) in table.items {
            let near = table
                .asked
                .iter()
                .map(|known| (strsim::damerau_levenshtein(known, key), known))
                .filter(|(distance, _)| *distance <= 2)
                .min();
            let hint = match near {
                Some((_, known)) => format!("did you mean `{known}`?"),
                None => format!("known here: {}", table.asked.join(", ")),
            };
            let key: String = key.chars().take(60).collect();
            self.wrong(
                item.line,
                format!("unknown key `{}` in {}; {hint}", key.escape_debug(), table.place),
            );
        }
    }
}

impl<'d> Table<'d> {
    fn take(&mut self, key: &'static str) -> Option<At<&'d Item>> {
        self.asked.push(key);
        self.items.remove(key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.items.contains_key(key)
    }
}
