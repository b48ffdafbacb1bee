//! The node plane over HTTP: method and path -> [`Endpoint`]. The whole route table is here.
//!
//! | method | path | what |
//! |---|---|---|
//! | GET | `/ipxe/MAC` | the script of that machine |
//! | GET | `/ipxe/MAC/CPU/NIC` | the same, once iPXE has looked at its hardware |
//! | GET | `/boot/LOADER` | a loader, for UEFI HTTP boot |
//! | GET | `/node/TOKEN/ks` | the kickstart of an arming |
//! | GET | `/node/TOKEN/secret/munge.key` | a secret the installer writes into a file |
//! | POST | `/node/TOKEN/host-cert` | public host key in, certificate out |
//! | POST | `/node/TOKEN/event/STAGE` | how far the node is |
//! | GET | `/tree/OS/…` `/repo/OS/…` `/keys/OS/…` | install tree, package repository, package keys |
//!
//! HEAD goes wherever GET goes.

pub mod files;
pub mod range;
pub mod report;

use percent_encoding::percent_decode_str;

use crate::mac::Mac;
use crate::machine::Hardware;
use crate::machine::Loader;
use crate::name::OsName;

/// A request's method, as far as we answer any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET or HEAD: nothing changes.
    Get,
    /// POST.
    Post,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// The iPXE script of a machine, and what it told of its hardware.
    Script(Mac, Option<Hardware>),
    /// A loader.
    Loader(Loader),
    /// Something that belongs to an arming; the token is not checked yet.
    Node {
        /// The token as it stood in the path.
        token: String,
        /// What of it.
        what: NodeEndpoint,
    },
    /// A file of an os.
    File {
        /// Which os.
        os: OsName,
        /// Which of its folders.
        root: Root,
        /// The file in it.
        path: FilePath,
    },
}

/// What belongs to an arming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeEndpoint {
    /// GET the kickstart.
    Kickstart,
    /// GET munge's key.
    MungeKey,
    /// POST a public host key, get its certificate.
    HostCertificate,
    /// POST how far it is.
    Event(report::StageName),
}

/// The folders of an os that nodes may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// Its install tree.
    Tree,
    /// The cluster's own packages for it.
    Repo,
    /// The keys its packages are signed with.
    Keys,
}

/// A relative path of at least one plain segment: none is empty, `.` or `..`, none holds NUL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath(String);

/// Why a request meets no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoEndpoint {
    /// 404.
    NotFound,
    /// 405, with what is allowed there.
    Method {
        /// The `Allow` header.
        allow: &'static str,
    },
}

impl FilePath {
    /// The path, without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A path that needs no decoding.
    pub fn plain(path: &str) -> Option<Self> {
        let is_plain = |segment: &str| !matches!(segment, "" | "." | "..");
        let sound = path.split('/').all(is_plain) && !path.contains('\0');
        sound.then(|| Self(path.to_owned()))
    }

    /// Joins segments; doubled slashes fall away (shim asks for `/sb//grubx64.efi`).
    fn from_segments(segments: &[&str]) -> Option<Self> {
        let mut path = vec![];
        for segment in segments.iter().filter(|segment| !segment.is_empty()) {
            let segment = percent_decode_str(segment).decode_utf8().ok()?;
            if matches!(&*segment, "." | "..") || segment.contains(['/', '\0']) {
                return None;
            }
            path.push(segment.into_owned());
        }
        (!path.is_empty()).then(|| Self(path.join("/")))
    }
}

/// Finds the endpoint of a request. `path` is the request target without its query.
pub fn route(method: Method, path: &str) -> Result<Endpoint, NoEndpoint> {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let endpoint = match segments.as_slice() {
        ["ipxe", mac] => script(mac, None),
        ["ipxe", mac, cpu, nic] => script(mac, Some(hardware(cpu, nic))),
        ["boot", name] => loader(name).map(Endpoint::Loader),
        ["node", token, rest @ ..] => {
            let what = node_endpoint(rest).ok_or(NoEndpoint::NotFound)?;
            allowed(method, what)?;
            return Ok(Endpoint::Node { token: (*token).to_owned(), what });
        }
        ["tree", os, rest @ ..] => file(os, Root::Tree, rest),
        ["repo", os, rest @ ..] => file(os, Root::Repo, rest),
        ["keys", os, rest @ ..] => file(os, Root::Keys, rest),
        _ => None,
    };
    match (endpoint, method) {
        (None, _) => Err(NoEndpoint::NotFound),
        (Some(_), Method::Post) => Err(NoEndpoint::Method { allow: "GET, HEAD" }),
        (Some(endpoint), Method::Get) => Ok(endpoint),
    }
}

fn script(mac: &str, hardware: Option<Hardware>) -> Option<Endpoint> {
    mac.parse().ok().map(|mac| Endpoint::Script(mac, hardware))
}

/// What iPXE cannot tell is left empty or strange, and counts as not known.
fn hardware(cpu: &str, nic: &str) -> Hardware {
    Hardware { cpu: cpu.parse().ok(), nic: nic.parse().ok() }
}

fn loader(name: &str) -> Option<Loader> {
    name.parse().ok()
}

fn file(os: &str, root: Root, rest: &[&str]) -> Option<Endpoint> {
    let path = FilePath::from_segments(rest)?;
    os.parse().ok().map(|os| Endpoint::File { os, root, path })
}

fn node_endpoint(rest: &[&str]) -> Option<NodeEndpoint> {
    match rest {
        ["ks"] => Some(NodeEndpoint::Kickstart),
        ["secret", "munge.key"] => Some(NodeEndpoint::MungeKey),
        ["host-cert"] => Some(NodeEndpoint::HostCertificate),
        ["event", stage] => report::StageName::parse(stage).map(NodeEndpoint::Event),
        _ => None,
    }
}

fn allowed(method: Method, what: NodeEndpoint) -> Result<(), NoEndpoint> {
    match (what, method) {
        (NodeEndpoint::Kickstart | NodeEndpoint::MungeKey, Method::Get)
        | (NodeEndpoint::HostCertificate | NodeEndpoint::Event(_), Method::Post) => Ok(()),
        (NodeEndpoint::Kickstart | NodeEndpoint::MungeKey, Method::Post) => {
            Err(NoEndpoint::Method { allow: "GET, HEAD" })
        }
        (NodeEndpoint::HostCertificate | NodeEndpoint::Event(_), Method::Get) => {
            Err(NoEndpoint::Method { allow: "POST" })
        }
    }
}

#[cfg(test)]
mod tests;
