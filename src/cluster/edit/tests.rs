use super::*;

fn removed(text: &str) -> String {
    remove_node(text, &"it".parse().expect("name")).expect("removed")
}

fn check(before: &str, after: &str) {
    assert_eq!(removed(before), after);
    let (windows, expected) = (before.replace('\n', "\r\n"), after.replace('\n', "\r\n"));
    assert_eq!(removed(&windows), expected);
}

#[test]
fn comments_right_above_and_below_go_and_others_stay() {
    check(
        "x = 1\n\n# Rack 1.\n\n# It.\n# Its disk is slow.\n[[node]] # it\nname = \"it\" # it\n# It too.\n\n# Rack 2.\n\n# Other.\n[[node]]\nname = \"b\"\n",
        "x = 1\n\n# Rack 1.\n\n# Rack 2.\n\n# Other.\n[[node]]\nname = \"b\"\n",
    );
}

#[test]
fn a_comment_between_two_nodes_belongs_to_the_second() {
    let [one, two] = ["it", "b"].map(|name| format!("[[node]]\nname = \"{name}\"\n"));
    check(&format!("{one}# Second.\n{two}"), &format!("# Second.\n{two}"));
    check(&format!("# First.\n{two}# Second.\n{one}"), &format!("# First.\n{two}"));
    check(&format!("{two}# Second.\n{one}# Third.\n[a]\n"), &format!("{two}# Third.\n[a]\n"));
}

#[test]
fn tables_of_the_node_go_too_wherever_they_stand() {
    check(
        "[[node]]\nname = \"it\"\ndisk.min_gib = 3\npackages = [\n  # none\n  \"a\",\n]\n[x]\ny = 1\n# Its.\n[node.extra.deep]\na = 1\n[z]\n",
        "[x]\ny = 1\n[z]\n",
    );
    check("  [[node]]\n  name = \"it\"", "");
    check("[[node]]\nname = \"b\"\n[[node]]\n  name = \"it\"", "[[node]]\nname = \"b\"\n");
}

#[test]
fn what_only_looks_like_a_comment_stays() {
    let text = "x = \"\"\"\n# no comment\"\"\"\n";
    check(&format!("{text}[[node]]\nname = \"it\"\n"), text);
}
