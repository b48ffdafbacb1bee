//! `rekindle node import`: all rows or none.

use crate::sandbox::{CLUSTER, Sandbox, same};

/// A cluster with room.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.change("192.168.10.12\"", "192.168.10.99\"");
    sandbox
}

#[track_caller]
fn imports(csv: &str) {
    let sandbox = sandbox();
    sandbox.write("nodes.csv", csv);
    sandbox.check(
        "node import nodes.csv",
        "gpu1 (02:00:00:00:00:01, 192.168.10.50) is added: its next network boot installs it and erases its disk\n\
         gpu2 (02:00:00:00:00:02, 192.168.10.12) is added: its next network boot installs it and erases its disk\n\
         exit 0\n",
    );
    let before = CLUSTER.replace("192.168.10.12\"", "192.168.10.99\"");
    let blocks = "\n[[node]]\nname = \"gpu1\"\nmac = \"02:00:00:00:00:01\"\nip = \"192.168.10.50\"\nroles = [\"gpu\", \"login\"]\n\
                  \n[[node]]\nname = \"gpu2\"\nmac = \"02:00:00:00:00:02\"\nip = \"192.168.10.12\"\n";
    same(csv, &sandbox.read("cluster.toml"), &format!("{before}{blocks}"));
}

#[test]
fn a_table_with_a_head_names_its_columns() {
    imports(
        "mac,name,roles,ip\n02:00:00:00:00:01,gpu1,gpu login,192.168.10.50\n02:00:00:00:00:02,gpu2,,\n",
    );
}

#[test]
fn a_table_without_a_head_has_the_columns_in_order() {
    imports("gpu1,02:00:00:00:00:01,192.168.10.50,,gpu login\ngpu2,02:00:00:00:00:02\n");
}

#[test]
fn only_the_mac_is_needed() {
    let sandbox = sandbox();
    sandbox.write("nodes.csv", "mac\n02:00:00:00:00:01\n02:00:00:00:00:02\n");
    sandbox.check(
        "node import nodes.csv --no-arm",
        "worker3 (02:00:00:00:00:01, 192.168.10.12) is added: it boots its own disk\n\
         worker4 (02:00:00:00:00:02, 192.168.10.13) is added: it boots its own disk\n\
         exit 0\n",
    );
}

#[test]
fn a_table_in_another_encoding_is_told_by_its_line() {
    let sandbox = sandbox();
    let csv = b"name,mac\n# B\xfcro\n";
    std::fs::write(sandbox.path("nodes.csv"), csv).expect("write");
    sandbox.check(
        "node import nodes.csv",
        "! rekindle: nodes.csv:2: this is not UTF-8; save the file in that encoding\nexit 1\n",
    );
}
