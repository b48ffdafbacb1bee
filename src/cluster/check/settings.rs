//! Settings that [defaults] and nodes share, and what nodes get unless they say otherwise.

use ssh_key::PublicKey;

use super::super::file::{At, Reader, Table};
use super::super::{BootOrder, DiskRule, Settings, UnfitPolicy};
use super::{show, value};
use crate::machine::Loader;
use crate::name::{OsName, is_one_line};

/// Smaller disks are sticks and cards.
const MIN_GIB: u32 = 10;
/// Room for the system beside partitions that are kept.
const ROOT_GIB: u32 = 30;

/// What nodes get unless they say otherwise.
#[derive(Debug, Clone)]
pub(super) struct Defaults {
    pub(super) os: Option<OsName>,
    pub(super) settings: Settings,
    pub(super) admin_keys: Vec<String>,
    pub(super) tries_max: u32,
}

impl Default for Defaults {
    fn default() -> Self {
        let settings = Settings {
            timezone: "UTC".to_owned(),
            keyboard: "us".to_owned(),
            language: "en_US.UTF-8".to_owned(),
            kernel_args: vec![],
            packages: vec![],
            disk: DiskRule { min_gib: MIN_GIB, root_gib: ROOT_GIB, ..DiskRule::default() },
            unfit: UnfitPolicy::Hold,
            boot_order: BootOrder::Network,
            loader: None,
        };
        Self { os: None, settings, admin_keys: vec![], tries_max: 3 }
    }
}

pub(super) fn defaults<'d>(
    reader: &mut Reader<'d>,
    root: &mut Table<'d>,
    systems: &[OsName],
) -> Defaults {
    let found = Defaults::default();
    if !root.has("defaults") {
        reader.wrong(1, "[defaults] is missing; it needs admin_keys = [\"ssh-ed25519 …\"] at least, or nobody could log in");
    }
    let Some(mut table) = reader.sub(root, "defaults") else { return found };
    let os = os(reader, &mut table, systems);
    let settings = settings(reader, &mut table, &found.settings);
    if !table.has("admin_keys") {
        reader.wrong(table.line, "[defaults] lacks `admin_keys`; add your public key (~/.ssh/id_ed25519.pub), or nobody could log in");
    }
    let keys = reader.list(&mut table, "admin_keys");
    if let Some(At { line, value }) = &keys
        && value.is_empty()
    {
        reader.wrong(*line, "`admin_keys` is empty; add your public key (~/.ssh/id_ed25519.pub), or nobody could log in");
    }
    let keys = keys.map_or_else(Vec::new, |keys| keys.value);
    let admin_keys = keys.into_iter().filter_map(|text| admin_key(reader, text)).collect();
    let tries_max =
        reader.number(&mut table, "tries", 1..=10).map_or(found.tries_max, |at| at.value);
    reader.finish(table);
    Defaults { os, settings, admin_keys, tries_max }
}

/// What is installed.
pub(super) fn os<'d>(
    reader: &mut Reader<'d>,
    table: &mut Table<'d>,
    systems: &[OsName],
) -> Option<OsName> {
    let os = reader.text(table, "os").and_then(|text| value::<OsName>(reader, text));
    if let Some(os) = os.as_ref().filter(|os| !systems.contains(&os.value)) {
        let known: Vec<_> = systems.iter().map(OsName::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        reader.wrong(
            os.line,
            format!("there is no [os.{}]; add it or use one of: {known}", os.value),
        );
    }
    os.map(|os| os.value)
}

/// What defaults and nodes may say of how a node is set up.
pub(super) fn settings<'d>(
    reader: &mut Reader<'d>,
    table: &mut Table<'d>,
    base: &Settings,
) -> Settings {
    let mut word = |key, like, is_good: fn(&str) -> bool, old: &str| {
        let Some(text) = reader.text(table, key) else { return old.to_owned() };
        if !is_good(text.value) {
            let shown = show(text.value);
            reader.wrong(
                text.line,
                format!("`{shown}` does not do as `{key}`; write it like {like}"),
            );
        }
        text.value.to_owned()
    };
    let timezone = word("timezone", "Europe/Berlin", is_timezone, &base.timezone);
    let keyboard = word("keyboard", "us", |text| is_plain(text, "_-().,"), &base.keyboard);
    let language = word("language", "en_US.UTF-8", is_language, &base.language);
    let kernel_args =
        word("kernel_args", "console=ttyS0 quiet", are_kernel_args, &base.kernel_args.join(" "));
    let kernel_args = kernel_args.split_whitespace().map(str::to_owned).collect();
    let packages = match reader.list(table, "packages") {
        None => base.packages.clone(),
        Some(list) => list.value.into_iter().filter_map(|text| package(reader, text)).collect(),
    };
    let disk = disk(reader, table, &base.disk).unwrap_or_else(|| base.disk.clone());
    let hold_or_local = [("hold", UnfitPolicy::Hold), ("local", UnfitPolicy::Local)];
    let unfit = one_of(reader, table, "unfit", hold_or_local).unwrap_or(base.unfit);
    let orders = [("network", BootOrder::Network), ("disk", BootOrder::Disk)];
    let boot_order = one_of(reader, table, "boot_order", orders).unwrap_or(base.boot_order);
    let loader = loader(reader, table).or(base.loader);
    Settings {
        timezone,
        keyboard,
        language,
        kernel_args,
        packages,
        disk,
        unfit,
        boot_order,
        loader,
    }
}

fn loader<'d>(reader: &mut Reader<'d>, table: &mut Table<'d>) -> Option<Loader> {
    let text = reader.text(table, "loader")?;
    let loader = text.value.parse().ok();
    if loader.is_none() {
        let (shown, known) = (show(text.value), Loader::ALL.map(Loader::file_name).join(", "));
        reader.wrong(text.line, format!("`{shown}` is no loader; known are {known}"));
    }
    loader
}

/// Takes one of two words.
pub(super) fn one_of<'d, T>(
    reader: &mut Reader<'d>,
    table: &mut Table<'d>,
    key: &'static str,
    [(a, first), (b, second)]: [(&str, T); 2],
) -> Option<T> {
    let text = reader.text(table, key)?;
    if text.value == a {
        Some(first)
    } else if text.value == b {
        Some(second)
    } else {
        let shown = show(text.value);
        reader.wrong(text.line, format!("`{shown}` is no `{key}`; write \"{a}\" or \"{b}\""));
        None
    }
}

pub(super) fn is_plain(text: &str, more: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with('-')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || more.contains(letter))
}

fn is_language(text: &str) -> bool {
    is_plain(text, "_-.@") && text.starts_with(|first: char| first.is_ascii_alphabetic())
}

/// `Area/City` of the tz database.
fn is_timezone(text: &str) -> bool {
    text.split('/').all(|part| is_plain(part, "_-+") && !part.starts_with('.'))
}

/// Quotes would change what the boot loader and the kickstart see.
pub(super) fn are_kernel_args(text: &str) -> bool {
    text.len() <= 1000
        && text.chars().all(|letter| {
            letter == ' ' || letter.is_ascii_graphic() && !"\"'`$\\{}|&;<>#".contains(letter)
        })
}

fn package<'d>(reader: &mut Reader<'d>, text: At<&'d str>) -> Option<String> {
    let name = text.value.trim_start_matches(['@', '-']).trim_start_matches('^');
    if is_plain(name, "._-+*") && text.value.len() <= 100 {
        return Some(text.value.to_owned());
    }
    let shown = show(text.value);
    reader.wrong(text.line, format!("`{shown}` is no package; write a name like htop, a group like @development, or -name to leave one out"));
    None
}

/// Which disk, anew; but what is kept on it stays kept until `keep` itself says otherwise.
fn disk<'d>(reader: &mut Reader<'d>, table: &mut Table<'d>, base: &DiskRule) -> Option<DiskRule> {
    let mut inner = reader.sub(table, "disk")?;
    let line = inner.line;
    let mut named = |key, like, more: &str| {
        let text = reader.text(&mut inner, key)?;
        if is_plain(text.value, more) {
            return Some(text.value.to_owned());
        }
        let shown = show(text.value);
        reader
            .wrong(text.line, format!("`{shown}` is no `{key}` of a disk; copy it from `{like}`"));
        None
    };
    let serial = named("serial", "lsblk -o NAME,SERIAL", "_-.:");
    let wwn = named("wwn", "lsblk -o NAME,WWN", "_-.:");
    let model = named("model", "lsblk -o NAME,MODEL", " _-.:()/");
    let path = named("path", "ls /dev/disk/by-path", "/_-.:+");
    if let Some(path) = path.as_deref().filter(|path| !path.starts_with("/dev/")) {
        reader.wrong(line, format!("`{path}` is no device; write one of /dev/disk/by-path"));
    }
    let is_named = serial.is_some() || wwn.is_some() || path.is_some();
    let min_gib = reader.number(&mut inner, "min_gib", 1..=100_000).map(|at| at.value);
    let max_gib = reader.number(&mut inner, "max_gib", 1..=100_000).map(|at| at.value);
    // A disk that is called by its name may be of any size.
    let min_gib = min_gib.unwrap_or(if is_named { 1 } else { MIN_GIB });
    if max_gib.is_some_and(|max| max < min_gib) {
        reader
            .wrong(line, format!("`max_gib` is below `min_gib` ({min_gib}); no disk can be both"));
    }
    let keep = match reader.list(&mut inner, "keep") {
        None => base.keep.clone(),
        Some(list) => {
            let mounts = list.value.into_iter().filter_map(|text| value(reader, text));
            mounts.map(|at| at.value).collect()
        }
    };
    let root_gib = reader.number(&mut inner, "root_gib", 4..=10_000).map(|at| at.value);
    if root_gib.is_some() && keep.is_empty() {
        reader.wrong(
            line,
            "`root_gib` is only for a disk with `keep`; without, the root takes the whole disk",
        );
    }
    let use_failing = reader.flag(&mut inner, "use_failing").is_some_and(|at| at.value);
    reader.finish(inner);
    let root_gib = root_gib.unwrap_or(base.root_gib);
    Some(DiskRule { min_gib, max_gib, serial, wwn, model, path, keep, root_gib, use_failing })
}

/// Whether a text is the one line of an OpenSSH public key, without options before it.
pub fn is_public_key(key: &str) -> bool {
    let is_plain = is_one_line(key) && !key.contains(['"', '\'', '\\']);
    is_plain && PublicKey::from_openssh(key).is_ok()
}

fn admin_key<'d>(reader: &mut Reader<'d>, text: At<&'d str>) -> Option<String> {
    let key = text.value.trim();
    if is_public_key(key) {
        return Some(key.to_owned());
    }
    let shown = show(&key.chars().take(30).collect::<String>());
    reader.wrong(
        text.line,
        format!("`{shown}…` is no OpenSSH public key; paste the one line of ~/.ssh/id_ed25519.pub"),
    );
    None
}
