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

#[test]
fn a_file_that_is_no_table_is_said_so() {
    let sandbox = sandbox();
    sandbox.check(
        "node import nodes.csv",
        "! rekindle: cannot read nodes.csv: No such file or directory (os error 2)\nexit 2\n",
    );
    sandbox.write("nodes.csv", "# nothing yet\n\n");
    sandbox.check("node import nodes.csv", "! rekindle: nodes.csv names no machine; write a line like worker1,52:54:00:aa:bb:01\nexit 1\n");
}

#[test]
fn comments_and_blank_lines_are_skipped() {
    imports(
        "# bought in 2009; second-hand\n\nname;mac;ip;os;roles\n# the big one\ngpu1;02:00:00:00:00:01;192.168.10.50;;gpu login\n\n\"gpu2\";\"02:00:00:00:00:02\"\n",
    );
}

#[test]
fn one_bad_row_changes_nothing_and_every_bad_row_is_named() {
    let sandbox = sandbox();
    let before = sandbox.read("cluster.toml");
    let expect = |csv: &str, expected: &[&str]| {
        sandbox.write("nodes.csv", csv);
        let told = |line: &&str| format!("! rekindle: nodes.csv:{line}\n");
        let told: String = expected.iter().map(told).collect();
        sandbox.check("node import nodes.csv", &format!("{told}exit 1\n"));
        same("the file", &sandbox.read("cluster.toml"), &before);
    };
    expect(
        "name,mac,ip\ngood,02:00:00:00:00:01,\nBad,02:00:00:00:00:02,\nx,zz,10.0.0.300\ny,,\nz,02:00:00:00:00:03,,el9,,extra\n",
        &[
            "3: `Bad` cannot be a node name; use lower-case letters, digits and hyphens, begin with a letter, at most 63 characters",
            "4: `zz` is not a MAC address; write it like 52:54:00:aa:bb:01",
            "4: `10.0.0.300` is no IPv4 address",
            "5: the MAC is missing",
            "6: 6 fields, but there are 3 columns",
        ],
    );
    expect("name,mac,colour\n", &["1: unknown column `colour`; known: name, mac, ip, os, roles"]);
    // What only the cluster knows is named by its row too.
    expect(
        "name,mac,ip,os\n\
         a1,02:00:00:00:00:01,192.168.10.50,\n\
         a2,02:00:00:00:00:01,,\n\
         a1,02:00:00:00:00:02,,\n\
         a4,02:00:00:00:00:04,192.168.10.10,\n\
         a5,52:54:00:aa:bb:02,,\n\
         a6,02:00:00:00:00:06,,el7\n\
         a7,02:00:00:00:00:07,192.168.10.50,\n",
        &[
            "3: 02:00:00:00:00:01 is node `a1` already; `rekindle node reinstall a1` installs it again",
            "4: there is a node `a1` already; give another name",
            "5: 192.168.10.10 is already taken by node `worker1`; give another address",
            "6: 52:54:00:aa:bb:02 is node `worker2` already; `rekindle node reinstall worker2` installs it again",
            "7: not added: there is no [os.el7]; add it or use one of: el9",
            "8: 192.168.10.50 is already taken by node `a1`; give another address",
        ],
    );
    sandbox.check("log", "exit 0\n");
}

#[test]
fn spreadsheets_write_semicolons_a_mark_and_empty_rows() {
    imports(
        "\u{feff}Name;MAC;IP;OS;Roles\r\ngpu1;02-00-00-00-00-01;192.168.10.50;;gpu login\r\n;;;;\r\ngpu2;020000000002;;;\r\n;;;;\r\n",
    );
}

#[test]
fn rows_beyond_the_last_address_are_named() {
    let sandbox = Sandbox::new();
    sandbox.write("nodes.csv", "mac\n02:00:00:00:00:01\n02:00:00:00:00:02\n");
    sandbox.check(
        "node import nodes.csv",
        "! rekindle: nodes.csv:3: all addresses of network.workers are taken; widen the range or give an address\nexit 1\n",
    );
    same("the file", &sandbox.read("cluster.toml"), CLUSTER);
}

#[test]
fn a_bad_row_is_named_by_its_own_line_whatever_stands_before_it() {
    for end in ["\n", "\r\n"] {
        let sandbox = sandbox();
        let csv = "\n# two\nmac\n\n# five\n\nzz\n02:00:00:00:00:01\n# nine\nyy\n";
        sandbox.write("nodes.csv", &csv.replace('\n', end));
        sandbox.check(
            "node import nodes.csv",
            "! rekindle: nodes.csv:7: `zz` is not a MAC address; write it like 52:54:00:aa:bb:01\n\
             ! rekindle: nodes.csv:10: `yy` is not a MAC address; write it like 52:54:00:aa:bb:01\n\
             exit 1\n",
        );
    }
}
