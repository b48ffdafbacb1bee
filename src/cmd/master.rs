//! `rekindle master`: the machine itself, planned, applied, confirmed or undone.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Files, Wrong, out};
use crate::apply::{self, Pending, Record, look};
use crate::journal;
use crate::push;
use crate::setup::{self, Action, Area, Paths, Plan, Step, Wish};
use crate::trust::{Secrets, store};

/// How long a change waits for its confirmation, in seconds.
const CONFIRM_SECONDS: u64 = 60;

/// Set up this machine as the master
#[derive(Debug, Subcommand)]
pub(super) enum Master {
    /// Show every byte that `apply` would change, and why; exit code 1 when something would
    Plan(PlanArgs),
    /// Do what `plan` shows; what could lock you out is undone unless you confirm it in time
    Apply(ApplyArgs),
    /// Keep the last change
    Confirm,
    /// Undo the last change, unless it was confirmed
    Rollback(Rollback),
    /// Undo all that `apply` ever did
    Revert,
}

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_name = "AREA,…", value_parser = areas())]
    only: Vec<Area>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_name = "AREA,…", value_parser = areas())]
    only: Vec<Area>,
    /// Do it without asking first
    #[arg(long)]
    yes: bool,
    /// Seconds until a change that is not confirmed is undone
    #[arg(long, default_value_t = CONFIRM_SECONDS, value_parser = clap::value_parser!(u64).range(5..=3600))]
    within: u64,
}

#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// Only this change
    #[arg(long, hide = true)]
    id: Option<u64>,
    /// Wait so many seconds first
    #[arg(long, hide = true)]
    after: Option<u64>,
}

/// The words of `--only`.
fn areas() -> impl TypedValueParser<Value = Area> {
    PossibleValuesParser::new(Area::ALL.map(Area::word)).try_map(|word| {
        let area = Area::ALL.into_iter().find(|area| area.word() == word);
        area.ok_or("no such area")
    })
}

impl Master {
    pub(super) fn run(self, files: &Files) -> anyhow::Result<()> {
        // Paths go into files of the system, and to a process that starts in another folder.
        let files = &Files {
            config: std::path::absolute(&files.config)?,
            state: std::path::absolute(&files.state)?,
        };
        match self {
            Self::Plan(args) => args.run(files),
            Self::Apply(args) => args.run(files),
            Self::Confirm => {
                let kept = match Record::existing(&files.state) {
                    Some(record) => record.confirm()?,
                    None => false,
                };
                out::text(if kept { "kept" } else { "nothing waits to be confirmed" })
            }
            Self::Rollback(args) => args.run(files),
            Self::Revert => {
                let record = Record::open(&files.state)?;
                // Else it would begin again as soon as we are done.
                apply::stop_joining();
                let _held = record.lock()?;
                let count = record.revert()?;
                out::text(&format!(
                    "{count} changes undone; this machine is as it was before the first apply"
                ))
            }
        }
    }
}

fn plan(files: &Files, only: &[Area], secrets: &Secrets) -> anyhow::Result<Plan> {
    let cluster = files.cluster()?;
    let state = files.journal()?.state()?;
    let facts = look::facts(&cluster, secrets.munge_key())?;
    let areas = if only.is_empty() { &Area::ALL } else { only };
    let host_ca = &secrets.public().host_ca;
    let text = |path: &Path| path.display().to_string();
    let exe = text(&std::env::current_exe().context("find this program")?);
    let paths = &Paths { program: exe, config: text(&files.config), state: text(&files.state) };
    let wish = Wish { cluster: &cluster, state: &state, host_ca, paths };
    setup::plan(&wish, &facts, areas).map_err(|refusals| {
        let lines: Vec<_> = refusals.iter().map(ToString::to_string).collect();
        Wrong(lines.join("\n")).into()
    })
}

impl PlanArgs {
    fn run(self, files: &Files) -> anyhow::Result<()> {
        let plan = plan(files, &self.only, &store::load_or_create(&files.state)?)?;
        if self.json {
            let steps: Vec<_> = plan.steps.iter().map(as_json).collect();
            out::json(&json!({ "steps": steps, "left_alone": plan.left_alone }))?;
        } else {
            show(&plan)?;
        }
        if plan.steps.is_empty() {
            return Ok(());
        }
        Err(Wrong(format!(
            "{} steps would be done; `rekindle master apply` does them",
            plan.steps.len()
        ))
        .into())
    }
}

impl ApplyArgs {
    fn run(self, files: &Files) -> anyhow::Result<()> {
        let record = Record::open(&files.state)?;
        if record.pending()?.is_some() {
            return Err(apply::ApplyError::Pending.into());
        }
        let secrets = store::load_or_create(&files.state)?;
        let plan = plan(files, &self.only, &secrets)?;
        show(&plan)?;
        if plan.steps.is_empty() {
            return Ok(());
        }
        if !self.yes {
            if !std::io::stdin().is_terminal() {
                return Err(Wrong(
                    "nothing was done; add --yes to do it without a question".to_owned(),
                )
                .into());
            }
            if !out::ask("do this?")? {
                return Err(Wrong("nothing was done".to_owned()).into());
            }
        }
        let held = record.lock()?;
        if self::plan(files, &self.only, &secrets)? != plan {
            let why = "this machine changed meanwhile, and nothing was done; run it again";
            return Err(Wrong(why.to_owned()).into());
        }
        let is_risky = plan.steps.iter().any(|step| step.area.is_risky());
        let id = journal::now_ms();
        let pending = record.begin(id)?;
        if is_risky {
            let exe = std::env::current_exe().context("find this program")?;
            let guarded = apply::guard(&exe, &files.config, &files.state, id, self.within);
            if let Err(error) = guarded {
                record.confirm()?;
                return Err(error.into());
            }
        }
        let total = plan.steps.len();
        let told = |index: usize| {
            if let Some(step) = plan.steps.get(index) {
                out::note(&format!("{}/{total} {}: {}", index + 1, step.area, words(&step.action)));
            }
        };
        if let Err(error) = apply::carry_out(&record, &plan, secrets.munge_key(), told) {
            out::note("undoing what was done");
            record.roll_back(Some(id))?;
            return Err(anyhow::Error::new(error).context("nothing was kept"));
        }
        drop(held);
        if !is_risky {
            record.confirm()?;
            return out::text(&format!("{total} steps done"));
        }
        self.confirmed(&record, &pending, total)
    }

    /// Asks a person who is there; tells a script what to do.
    fn confirmed(&self, record: &Record, pending: &Pending, total: usize) -> anyhow::Result<()> {
        let within = self.within;
        out::text(&format!(
            "{total} steps done; undone in {within} s unless you say: rekindle master confirm"
        ))?;
        if self.yes || !std::io::stdin().is_terminal() {
            return Ok(());
        }
        let keeps = out::ask("open a second ssh session to see that you still get in. Keep it?")?;
        let _held = record.lock()?;
        // Meanwhile it may have been confirmed from there, or its time was over.
        out::text(match (keeps, record.is_kept(pending)?) {
            (true, true) => "kept: it was confirmed already",
            (false, true) => "it was confirmed already and stays; rekindle master revert undoes it",
            (true, false) if record.confirm()? => "kept",
            (true, false) => "too late: it was undone already",
            (false, false) => {
                record.roll_back(Some(pending.id))?;
                "undone"
            }
        })
    }
}

impl Rollback {
    fn run(self, files: &Files) -> anyhow::Result<()> {
        let waits = |record: &Record| -> anyhow::Result<bool> {
            let pending = record.pending()?;
            Ok(pending.is_some_and(|pending| self.id.is_none_or(|id| id == pending.id)))
        };
        let nothing = "nothing waits to be confirmed";
        // The time begins when the change is whole, or when whoever made it is gone.
        if let Some(record) = Record::existing(&files.state) {
            drop(record.lock()?);
        }
        // Once a second, so that nobody stands guard over what was confirmed.
        for _ in 0..self.after.unwrap_or(0) {
            match Record::existing(&files.state) {
                Some(record) if waits(&record)? => apply::pause(Duration::from_secs(1)),
                Some(_) | None => return out::text(nothing),
            }
        }
        let undone = match Record::existing(&files.state) {
            Some(record) => {
                let _held = record.lock()?;
                record.roll_back(self.id)?
            }
            None => false,
        };
        out::text(if undone { "undone" } else { nothing })
    }
}

fn show(plan: &Plan) -> anyhow::Result<()> {
    for step in &plan.steps {
        out::text(&format!("{} {}: {} ({})", step.id, step.area, words(&step.action), step.why))?;
        if let Action::Write { path, before, after } = &step.action {
            let old = before.as_ref().map(|found| (found.mode, found.text.as_str()));
            out::text(&push::diff(path, old, (after.mode, &after.text)))?;
        }
    }
    for line in &plan.left_alone {
        out::note(&format!("left alone: {line}"));
    }
    if plan.steps.is_empty() { out::text("nothing to do") } else { Ok(()) }
}

fn words(action: &Action) -> String {
    match action {
        Action::Write { path, before: None, .. } => format!("write {path}"),
        Action::Write { path, .. } => format!("change {path}"),
        Action::Sysctl { name, before, after } => {
            let before = before.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
            format!("{name} {before} -> {after}")
        }
        Action::Address { link, address, prefix } => {
            format!("{link} gets {address}/{prefix} and is up")
        }
        Action::LoadRules(_) => "load the rules".to_owned(),
        Action::Index(dir) => format!("index the packages in {}", dir.display()),
        Action::TorqueDatabase => "make the server's books: pbs_server -t create".to_owned(),
        Action::Qmgr(_, told) => format!("tell the server: {}", told.lines.join("; ")),
        Action::MungeKey => "give munge the cluster's key".to_owned(),
        Action::Enable { unit } => format!("start {unit} at boot"),
        Action::Service { unit, .. } => format!("start {unit}, now and at boot"),
    }
}

fn as_json(step: &Step) -> serde_json::Value {
    let file = match &step.action {
        Action::Write { path, before, after } => json!({
            "path": path, "mode": format!("{:o}", after.mode), "after": after.text,
            "before": before.as_ref().map(|found| &found.text),
        }),
        Action::Sysctl { .. }
        | Action::Address { .. }
        | Action::LoadRules(_)
        | Action::MungeKey
        | Action::Index(_)
        | Action::TorqueDatabase
        | Action::Qmgr(..)
        | Action::Enable { .. }
        | Action::Service { .. } => serde_json::Value::Null,
    };
    json!({
        "area": step.area.word(), "id": step.id, "why": step.why, "what": words(&step.action),
        "file": file,
    })
}
