//! Measures rekindle's servers against those that people use today: same wire, same clients, alternating runs, medians.
//! What is printed are ratios: of another machine only those mean something.

mod dhcp;
mod http;
mod peers;
mod place;
mod tftp;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use serde_json::json;

/// Runs of each server unless `--rounds` says otherwise; they take turns, so that a disturbance meets all of them.
const ROUNDS: usize = 5;
static CHOSEN: OnceLock<usize> = OnceLock::new();
/// The only server that is to run, when one was named: for a profiler.
static ONLY: OnceLock<String> = OnceLock::new();

fn rounds() -> usize {
    *CHOSEN.get_or_init(|| ROUNDS)
}

/// What one run of a server gave: name of the figure -> value. Less is better, but for those that end in `/s`.
pub type Figures = BTreeMap<&'static str, f64>;

/// The figures of a run, and the memory that it took.
pub fn with<const N: usize>(
    memory: [(&'static str, f64); 2],
    more: [(&'static str, f64); N],
) -> Figures {
    memory.into_iter().chain(more).collect()
}

/// One question, asked of every server in turn.
pub struct Contest {
    pub name: String,
    /// Server -> the figures of each run.
    pub runs: BTreeMap<&'static str, Vec<Figures>>,
}

impl Contest {
    /// Asks each of `servers` in turn, several times.
    pub fn hold(
        name: impl Into<String>,
        servers: &[&'static str],
        mut run: impl FnMut(&'static str) -> Result<Figures>,
    ) -> Result<Self> {
        let name = name.into();
        let mut runs: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for round in 1..=rounds() {
            for server in servers.iter().filter(|it| ONLY.get().is_none_or(|only| only == **it)) {
                eprint!("\r\x1b[K{name}: round {round} of {}, {server}", rounds());
                let figures = run(server).with_context(|| format!("{name}: {server}"))?;
                runs.entry(*server).or_default().push(figures);
            }
        }
        eprint!("\r\x1b[K");
        Ok(Self { name, runs })
    }

    fn median(&self, server: &str, figure: &str) -> Option<f64> {
        let values = self.runs.get(server)?.iter().filter_map(|run| run.get(figure)).copied();
        let mut values: Vec<_> = values.collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    fn print(&self) {
        println!("\n{}", self.name);
        let figures: Vec<_> = self.runs.values().flatten().flat_map(BTreeMap::keys).collect();
        let mut figures: Vec<&str> = figures.into_iter().copied().collect();
        figures.sort_unstable();
        figures.dedup();
        for figure in figures {
            let ours = self.median("rekindle", figure);
            let mut line = format!("  {figure:<22}");
            let mut others: Vec<_> = self.runs.keys().filter(|it| **it != "rekindle").collect();
            others.insert(0, &"rekindle");
            for server in others {
                let Some(value) = self.median(server, figure) else { continue };
                line.push_str(&format!("  {server} {}", short(value)));
                if let Some(ours) = ours.filter(|_| *server != "rekindle" && value != 0.0) {
                    line.push_str(&format!(" (ours {:.2}x)", ours / value));
                }
            }
            println!("{line}");
        }
    }
}

fn short(value: f64) -> String {
    if value >= 100.0 || value == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn main() -> Result<()> {
    let mut json_file: Option<PathBuf> = None;
    let mut wanted = vec![];
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => json_file = Some(words.next().context("--json FILE")?.into()),
            "--rounds" => {
                let rounds = words.next().and_then(|word| word.parse().ok()).filter(|it| *it > 0);
                CHOSEN.set(rounds.context("--rounds N")?).ok();
            }
            "--only" => drop(ONLY.set(words.next().context("--only SERVER")?)),
            "dhcp" | "tftp" | "http" => wanted.push(word),
            _ => bail!(
                "`{word}` is not known; dhcp, tftp, http, --rounds N, --only SERVER and --json FILE are"
            ),
        }
    }
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    let mut contests = vec![];
    if is_wanted("dhcp") {
        contests.extend(dhcp::contests()?);
    }
    if is_wanted("tftp") {
        contests.extend(tftp::contests()?);
    }
    if is_wanted("http") {
        contests.extend(http::contests()?);
    }
    println!("medians of {} alternating runs; of times, CPU and memory less is better", rounds());
    for contest in &contests {
        contest.print();
    }
    if let Some(file) = json_file {
        let all: Vec<_> =
            contests.iter().map(|it| json!({ "name": it.name, "runs": it.runs })).collect();
        std::fs::write(&file, serde_json::to_string_pretty(&all)?)?;
    }
    Ok(())
}
