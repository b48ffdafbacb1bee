//! Many nodes at once: the text of a CSV file -> nodes to add, all of them or none.

use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr;

use crate::mac::Mac;
use crate::name::{NodeName, OsName, Role};

use super::Finding;

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedNode {
    /// Line in the file, from 1.
    pub line: usize,
    /// Host name, when given.
    pub name: Option<NodeName>,
    /// Hardware address.
    pub mac: Mac,
    /// Address, when given.
    pub ip: Option<Ipv4Addr>,
    /// Its os, when given.
    pub os: Option<OsName>,
    /// What it is for.
    pub roles: Vec<Role>,
}

/// Everything that is wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportFindings(pub Vec<Finding>);

impl ImportFindings {
    /// One line a mistake, with the file's name.
    pub fn with_file(&self, file: &Path) -> String {
        let line =
            |found: &Finding| format!("{}:{}: {}", file.display(), found.line, found.message);
        self.0.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

const COLUMNS: [&str; 5] = ["name", "mac", "ip", "os", "roles"];

/// Reads a CSV text: commas or semicolons, `#` comments, an optional head that names the columns
/// (`name,mac,ip,os,roles` without one). Roles are separated by blanks.
pub fn parse_csv(text: &str) -> Result<Vec<ImportedNode>, ImportFindings> {
    let text = text.trim_start_matches('\u{feff}');
    let first = text.lines().find(|line| !line.starts_with('#') && !line.trim().is_empty());
    let semicolons = first.is_some_and(|line| line.contains(';'));
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .comment(Some(b'#'))
        .delimiter(if semicolons { b';' } else { b',' })
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let (mut nodes, mut wrong) = (vec![], vec![]);
    let mut columns: Option<Vec<String>> = None;
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let line = error.position().map_or(1, |at| line(text, at));
                wrong.push(Finding { line, message: "this is not CSV text".to_owned() });
                break;
            }
        };
        // Spreadsheets write rows that nobody filled in.
        if record.iter().all(str::is_empty) {
            continue;
        }
        let line = record.position().map_or(1, |at| line(text, at));
        let Some(columns) = &columns else {
            let head: Vec<String> = record.iter().map(str::to_lowercase).collect();
            let is_head = head.iter().any(|word| word == "mac");
            if let Some(unknown) =
                head.iter().find(|word| is_head && !COLUMNS.contains(&word.as_str()))
            {
                let message = format!(
                    "unknown column `{}`; known: {}",
                    unknown.escape_debug(),
                    COLUMNS.join(", ")
                );
                wrong.push(Finding { line, message });
            }
            let plain = COLUMNS.iter().map(|&name| name.to_owned()).collect();
            columns = Some(if is_head { head } else { plain });
            if !is_head && let Some(columns) = &columns {
                nodes.extend(node(columns, &record, line, &mut wrong));
            }
            continue;
        };
        nodes.extend(node(columns, &record, line, &mut wrong));
    }
    if wrong.is_empty() { Ok(nodes) } else { Err(ImportFindings(wrong)) }
}

/// The line a record stands on. The reader's own count is that of the first blank line or comment
/// before it.
fn line(text: &str, position: &csv::Position) -> usize {
    let at = usize::try_from(position.byte()).unwrap_or(usize::MAX).min(text.len());
    let (before, rest) = text.split_at_checked(at).unwrap_or((text, ""));
    let is_skipped = |line: &&str| line.trim().is_empty() || line.starts_with('#');
    let skipped = rest.lines().take_while(is_skipped).count();
    1 + before.matches('\n').count() + skipped
}

fn node(
    columns: &[String],
    record: &csv::StringRecord,
    line: usize,
    wrong: &mut Vec<Finding>,
) -> Option<ImportedNode> {
    if record.len() > columns.len() {
        let message = format!("{} fields, but there are {} columns", record.len(), columns.len());
        wrong.push(Finding { line, message });
    }
    let field = |name: &str| {
        let index = columns.iter().position(|column| column == name)?;
        record.get(index).filter(|text| !text.is_empty())
    };
    let mut complain = |message: String| wrong.push(Finding { line, message });
    let mac = match field("mac").map(str::parse::<Mac>) {
        Some(Ok(mac)) => Some(mac),
        Some(Err(error)) => {
            complain(error.to_string());
            None
        }
        None => {
            complain("the MAC is missing".to_owned());
            None
        }
    };
    let name = optional(field("name"), &mut complain);
    let os = optional(field("os"), &mut complain);
    let ip = field("ip").and_then(|text| {
        let ip = text.parse().ok();
        if ip.is_none() {
            complain(format!("`{}` is no IPv4 address", text.escape_debug()));
        }
        ip
    });
    let roles = field("roles").unwrap_or_default().split_whitespace();
    let roles = roles.filter_map(|role| optional(Some(role), &mut complain)).collect();
    Some(ImportedNode { line, name, mac: mac?, ip, os, roles })
}

fn optional<T: FromStr<Err: ToString>>(
    text: Option<&str>,
    complain: &mut impl FnMut(String),
) -> Option<T> {
    match text?.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            complain(error.to_string());
            None
        }
    }
}
