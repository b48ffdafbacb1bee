use super::*;
use crate::cluster::sample::{cluster, node};

fn parse(files: &[(&str, &str)]) -> Result<Snippets, String> {
    Snippets::parse(files.iter().copied(), &cluster()).map_err(|bad| bad.to_string())
}

#[test]
fn a_node_gets_what_is_for_all_then_for_its_roles_then_for_itself() {
    let snippets = parse(&[
        ("node-worker1.post", "echo one\n"),
        ("role-compute.post", "echo compute"),
        ("all.post", "echo all\n"),
        ("node-worker2.post", "echo two\n"),
        ("all.packages", "# tools\nhtop\n-nano\n"),
        ("README.md", "%end is fine here"),
        (".all.post.swp", "\u{0}"),
    ])
    .expect("good");
    let of = |number, part| {
        let names = snippets.of(&node(number), part).into_iter().map(|one| one.name.clone());
        names.collect::<Vec<_>>()
    };
    assert_eq!(of(1, Part::Post), ["all.post", "role-compute.post", "node-worker1.post"]);
    assert_eq!(of(2, Part::Packages), ["all.packages"]);
    assert_eq!(of(1, Part::Pre), Vec::<String>::new());
    assert_eq!(
        snippets.of(&node(1), Part::Post)[1].to_string(),
        "# kickstart.d/role-compute.post\necho compute\n"
    );
}

#[test]
fn what_cannot_stand_in_a_kickstart_is_refused_with_its_place() {
    for (file, text, expected) in [
        ("all.post", "echo\n %end\n", "kickstart.d/all.post:2: `%end` cannot stand here"),
        ("all.pre", "%include /etc/shadow", "kickstart.d/all.pre:1: `%include` cannot"),
        ("all.post", "echo\r\n", "kickstart.d/all.post:1: it holds the control character '\\r'"),
        ("all.packages", "htop; rm -rf /", "kickstart.d/all.packages:1: `htop; rm -rf /` is no"),
        ("all.sh", "", "kickstart.d/all.sh: the name says neither"),
        ("node-x9.post", "", "kickstart.d/node-x9.post: there is no node `x9`"),
        ("role-gpu.post", "", "kickstart.d/role-gpu.post: no node in cluster.toml has the role"),
        ("node-../../x.post", "", "kickstart.d/node-../../x.post: the name says neither"),
    ] {
        let message = parse(&[(file, text)]).expect_err(file);
        assert!(message.starts_with(expected), "{message}");
    }
}
