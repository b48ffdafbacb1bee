use super::*;
use crate::cluster::sample;
use crate::media::tests::tree;

fn keys() -> PublicKeys {
    let line = |name| {
        format!(
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIjoQ/ehgmxQcNeHYr1GvvPmZg+bE8iPbVfAtPqNFHvz {name}"
        )
    };
    PublicKeys { host_ca: line("ca"), master_root: line("root@master") }
}

fn rendered(change: impl FnOnce(&mut Node)) -> Result<String, RenderError> {
    let cluster = sample::cluster();
    let mut node = sample::node(1);
    change(&mut node);
    let (tree, token, keys) = (tree(), Token::masked(), keys());
    render(&Order { cluster: &cluster, node: &node, tree: &tree, token: &token, keys: &keys })
}

#[test]
fn a_node_gets_its_own_address_bound_to_its_card() {
    let text = rendered(|_| {}).expect("kickstart");
    assert!(text.contains(
        "network --device=52:54:00:aa:bb:01 --bindto=mac --bootproto=static --ip=192.168.10.10 \
         --netmask=255.255.255.0 --gateway=192.168.10.1 --nameserver=192.168.10.1 \
         --hostname=worker1.cluster.lan --noipv6 --onboot=yes --activate\n"
    ));
}

#[test]
fn nothing_secret_but_the_token_is_in_it() {
    let text = rendered(|_| {}).expect("kickstart");
    assert!(!text.contains("PRIVATE KEY"));
    assert!(text.contains("rootpw --lock\n"));
}

#[test]
fn a_release_without_templates_is_said_so() {
    let (cluster, node, keys, token) =
        (sample::cluster(), sample::node(1), keys(), Token::masked());
    let tree = Tree { release: Release::El8, ..tree() };
    let error =
        render(&Order { cluster: &cluster, node: &node, tree: &tree, token: &token, keys: &keys });
    assert_eq!(
        error.expect_err("el8").to_string(),
        "node `worker1`: kickstarts for el8 are not made yet; use an el9 tree"
    );
}

#[test]
fn a_value_that_breaks_out_is_refused_by_name() {
    let error = rendered(|node| node.kernel_args = vec!["a\"b".to_owned()]).expect_err("refused");
    assert!(error.to_string().starts_with("node `worker1`: kernel_args: `a\\\"b`"), "{error}");
}

/// Bash reads on to the next line that is nothing but the word.
#[test]
fn every_here_document_ends_where_it_should() {
    let text = rendered(|_| {}).expect("kickstart");
    let mut open = None;
    for line in text.lines() {
        let begins = line.rsplit_once("<<").map(|(_, word)| word.trim_matches('\''));
        match (open, begins) {
            (Some(word), _) if line == word => open = None,
            (Some(_), Some("REKINDLE" | "KS")) => panic!("still open at: {line}"),
            (None, Some(word @ ("REKINDLE" | "KS"))) => open = Some(word),
            _ => {}
        }
    }
    assert_eq!(open, None);
}
