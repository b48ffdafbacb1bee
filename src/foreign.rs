//! Installers of other systems (Debian's, say): what their kernel is told, and the owner's answers for one node.
//!
//! Every value that is filled in is a name, a number, an address or a line that was checked when `cluster.toml` was
//! read, so none can end a line of the file.

use crate::answers::{Answers, Word};
use crate::artifacts::base_url;
use crate::cluster::{ANSWERS, Cluster, Foreign, Node};
use crate::escape::{KernelArgs, Unwritable};
use crate::trust::Token;

/// The answer file of one node.
pub fn render(answers: &Answers, cluster: &Cluster, node: &Node, token: &Token) -> String {
    answers.fill(|word| value(word, cluster, node, token))
}

fn value(word: Word, cluster: &Cluster, node: &Node, token: &Token) -> String {
    let network = cluster.network();
    match word {
        Word::Name => node.name.to_string(),
        Word::Domain => network.domain.to_string(),
        Word::Mac => node.mac.to_string(),
        Word::Ip => node.ip.to_string(),
        Word::Prefix => network.subnet.prefix_len().to_string(),
        Word::Netmask => network.subnet.netmask().to_string(),
        Word::Master => network.address.to_string(),
        Word::Dns => {
            let resolvers = network.resolvers();
            resolvers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        }
        Word::Timezone => node.settings.timezone.clone(),
        Word::Language => node.settings.language.clone(),
        Word::Keyboard => node.settings.keyboard.clone(),
        // A line of an answer file may go on in the next one.
        Word::AdminKeys => cluster.admin_keys().join("\\n"),
        Word::Report => format!("{}/node/{}/event", base_url(cluster), token.reveal()),
        Word::Open => "{{".to_owned(),
    }
}

/// What the kernel of an installer is told for a node: its own words, with `{answers}` for the URL of the answer file,
/// and the node's further ones behind.
pub fn kernel_args(
    cluster: &Cluster,
    node: &Node,
    foreign: &Foreign,
    token: &Token,
) -> Result<String, Unwritable> {
    let answers = format!("{}/node/{}/ks", base_url(cluster), token.reveal());
    let own: Vec<String> = foreign.args.iter().map(|arg| arg.replace(ANSWERS, &answers)).collect();
    let all = KernelArgs::new(&[own, node.settings.kernel_args.clone()].concat())?;
    Ok(all.to_string().trim_start().to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::answers::WORDS;
    use crate::cluster::sample::{cluster, node, parts};

    fn filled(text: &str) -> String {
        let mut parts = parts();
        parts.admin_keys = vec!["ssh-ed25519 A a@lab".to_owned(), "ssh-ed25519 B b@lab".to_owned()];
        let answers = Answers::parse(text).expect("sound");
        render(&answers, &Cluster::assemble(parts), &node(1), &Token::masked())
    }

    #[test]
    fn a_node_gets_its_own_answers() {
        assert_eq!(
            filled(
                "d-i netcfg/get_hostname string {{name}}\n{{ip}}/{{prefix}} {{netmask}} {{master}} {{mac}}\n"
            ),
            "d-i netcfg/get_hostname string worker1\n192.168.10.10/24 255.255.255.0 192.168.10.1 52:54:00:aa:bb:01\n"
        );
        assert_eq!(filled("{{admin_keys}}"), "ssh-ed25519 A a@lab\\nssh-ed25519 B b@lab");
        assert_eq!(
            filled("wget {{report}}/installed"),
            "wget http://192.168.10.1/node/TOKEN-MASKED/event/installed"
        );
        for (name, _) in WORDS {
            let text = filled(&format!("{{{{{name}}}}}"));
            assert!(!text.is_empty() && !text.contains(char::is_control), "{name}: {text}");
        }
    }

    #[test]
    fn the_kernel_is_told_where_the_answers_are() {
        let foreign = Foreign {
            folder: PathBuf::from("/srv/debian"),
            kernel: "linux".to_owned(),
            initrd: "initrd.gz".to_owned(),
            args: ["auto=true", "url={answers}"].map(str::to_owned).into(),
            answers: PathBuf::from("/etc/rekindle/debian.preseed"),
        };
        let args = kernel_args(&cluster(), &node(1), &foreign, &Token::masked());
        assert_eq!(
            args.as_deref(),
            Ok("auto=true url=http://192.168.10.1/node/TOKEN-MASKED/ks console=ttyS0")
        );
    }
}
