//! S13 on releases that have Torque: its programs are stand-ins that keep their books in a folder, told by
//! the real `apply`.

use std::os::unix::fs::PermissionsExt;

use rekindle::journal::Journal;

use super::setup::Fresh;
use super::slurm::is_ready;
use crate::lab::process::run;
use crate::lab::{NODE1, NODE2, lab};

/// Keeps settings and nodes as files, and refuses what Torque's server refuses.
const QMGR: &str = r#"#!/bin/sh
[ -e $BOOKS/serverdb ] || { echo "qmgr: cannot connect to server" >&2; exit 3; }
set -- $2
echo "$*" >>$BOOKS/told
case "$1 $2" in
  "print server") cat $BOOKS/settings 2>/dev/null ;;
  "create node")
    case $3 in [a-z]*) ;; *) echo "name does not start with alpha" >&2; exit 1 ;; esac
    [ ! -e $BOOKS/node-$3 ] || { echo "node exists" >&2; exit 1; }
    printf '%s\n     %s\n' "$3" "$(echo "$4" | sed 's/,/\n     /g; s/=/ = /g')" >$BOOKS/node-$3 ;;
  "delete node") rm $BOOKS/node-$3 ;;
  "create queue") echo "$*" >>$BOOKS/settings ;;
esac
exit 0
"#;
const PBSNODES: &str = "#!/bin/sh\ncat $BOOKS/node-* 2>/dev/null\n";
/// Stays in the foreground until its time is over.
const PBS_SERVER: &str = "#!/bin/sh\n[ \"$*\" = '-D -a 0 -f -t create' ] || exit 9\n\
                          mkdir -p /var/lib/torque/server_priv && : >/var/lib/torque/server_priv/serverdb\nexec sleep 1000\n";

#[test]
fn torque_gets_its_books_its_queue_and_the_nodes_that_are_up() {
    let fresh = Fresh::new(lab!());
    let lab = &fresh.0;
    let (tools, books) = (lab.path("tools"), lab.path("torque/server_priv"));
    std::fs::create_dir_all(&tools).expect("folder");
    std::fs::create_dir_all(&books).expect("folder");
    // Ten seconds are long for a test.
    let timeout = "#!/bin/sh\nshift\nexec /usr/bin/timeout 1 \"$@\"\n";
    for (name, text) in [
        ("qmgr", QMGR),
        ("pbsnodes", PBSNODES),
        ("pbs_server", PBS_SERVER),
        ("pbs_sched", "#!/bin/sh\n"),
        ("trqauthd", "#!/bin/sh\n"),
        ("timeout", timeout),
    ] {
        std::fs::write(tools.join(name), text).expect("program");
        let mode = PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(tools.join(name), mode).expect("mode");
    }
    let path = format!("{}:{}", tools.display(), std::env::var_os("PATH").expect("path").display());
    let master = |words: &[&str]| {
        let mut command = fresh.command_in(&[(lab.path("torque"), "/var/lib/torque")], words);
        run(command.env("PATH", &path).env("BOOKS", &books))
    };
    let journal = Journal::open(&lab.state()).expect("journal");
    is_ready(&journal, NODE1.0);
    let only = ["--yes", "--only", "names,scheduler"];
    let applied = master(&[&["apply"], &only[..]].concat());
    assert_eq!(applied.code, Some(0), "{} {}", applied.text(), applied.err);
    let told = || std::fs::read_to_string(books.join("told")).expect("told");
    for line in [
        "set server default_queue = batch",
        "create node worker1 np=1,num_node_boards=1,properties=rekindle",
    ] {
        assert!(told().contains(line), "{line} in {}", told());
    }
    let name = std::fs::read_to_string(lab.path("etc/torque/server_name")).expect("name");
    assert_eq!(name, "master\n");
    let again = master(&["plan", "--only", "names,scheduler"]);
    assert_eq!(again.text(), "nothing to do\n", "{}", again.err);

    // The second one comes up: it joins, and nothing else happens.
    is_ready(&journal, NODE2.0);
    let applied = master(&[&["apply"], &only[..]].concat());
    assert_eq!(applied.code, Some(0), "{} {}", applied.text(), applied.err);
    assert_eq!(told().matches("create queue").count(), 1);
    assert!(books.join("node-worker2").exists());
    // And is installed again: no work for it.
    lab.rekindle(&["node", "reinstall", "worker2"]);
    let applied = master(&[&["apply"], &only[..]].concat());
    assert_eq!(applied.code, Some(0), "{} {}", applied.text(), applied.err);
    assert!(!books.join("node-worker2").exists() && books.join("node-worker1").exists());

    let reverted = master(&["revert"]);
    assert_eq!(reverted.code, Some(0), "{}", reverted.err);
    assert!(!books.join("node-worker1").exists() && !books.join("serverdb").exists());
    assert!(!lab.path("etc/torque").exists());
}
