//! TFTP packets (RFC 1350, options by RFC 2347): bytes <-> [`Packet`].

const DATA: u16 = 3;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// What a client sends, as far as an answer depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// RRQ.
    Read(Read),
    /// WRQ: always refused.
    Write,
    /// DATA or OACK: only servers of uploads and clients get those.
    Stray,
    /// ACK of a block.
    Ack(u16),
    /// ERROR, with its code. Never answered.
    Error(u16),
}

/// A read request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The file's name in plain form: see [`clean`].
    pub name: String,
    /// How the client wants the bytes.
    pub mode: Mode,
    /// Names and values of the options it asks for, as they were spelled.
    pub asked: Vec<(String, String)>,
}

/// Transfer mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As they are. Also what unknown modes are taken for.
    Octet,
    /// As text. Loaders, which are none, are served as they are.
    Netascii,
    /// To a user's mailbox; obsolete and refused.
    Mail,
}

/// Why bytes are no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Cut off.
    #[error("it is cut off")]
    Short,
    /// None of RFC 1350's.
    #[error("operation {0} is unknown")]
    Operation(u16),
    /// Nothing is left of the file name.
    #[error("it names no file")]
    NoName,
}

/// Error codes of RFC 1350 that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such file.
    NotFound,
    /// Nothing is ever written here, and no path leads anywhere else.
    AccessViolation,
    /// Mail.
    IllegalOperation,
    /// The file was taken away while it was sent.
    Unreadable,
}

impl Packet {
    /// Reads a datagram. Lenient about its end: ROMs leave the last NUL out, add more, or add
    /// whatever followed the name in their memory.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let (&operation, rest) = bytes.split_first_chunk().ok_or(Malformed::Short)?;
        let number = || Some(u16::from_be_bytes(*rest.first_chunk()?));
        match u16::from_be_bytes(operation) {
            1 => Read::parse(rest).map(Self::Read),
            2 => Ok(Self::Write),
            3 | 6 => Ok(Self::Stray),
            4 => number().map(Self::Ack).ok_or(Malformed::Short),
            // A client that cannot even count its error codes still means: stop.
            5 => Ok(Self::Error(number().unwrap_or(0))),
            other => Err(Malformed::Operation(other)),
        }
    }
}

impl Read {
    fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = bytes.split(|&byte| byte == 0);
        let name = clean(fields.next().unwrap_or_default());
        if name.is_empty() {
            return Err(Malformed::NoName);
        }
        let mode = match fields.next().unwrap_or_default() {
            text if text.eq_ignore_ascii_case(b"netascii") => Mode::Netascii,
            text if text.eq_ignore_ascii_case(b"mail") => Mode::Mail,
            _ => Mode::Octet,
        };
        let mut asked = vec![];
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            asked.push((text(name), text(value)));
        }
        Ok(Self { name, mode, asked })
    }
}

/// A name without what ROMs do to it: backslashes, leading slashes, `./`, doubled slashes, and
/// bytes behind its end (an option 67 without NUL drags its 0xFF along). Always lower case.
pub fn clean(bytes: &[u8]) -> String {
    let is_text = |byte: &u8| byte.is_ascii_graphic();
    let end = bytes.iter().rposition(is_text).map_or(0, |last| last + 1);
    let text = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default());
    let plain = text.to_ascii_lowercase().replace('\\', "/");
    let segments = plain.split('/').filter(|segment| !matches!(*segment, "" | "."));
    segments.collect::<Vec<_>>().join("/")
}

/// Bytes before the content of a DATA packet.
pub const DATA_HEADER: usize = 4;

/// A DATA packet behind what is in `out`, with room for so many bytes of content.
pub fn append_data(block: u16, len: usize, out: &mut Vec<u8>) {
    out.extend(DATA.to_be_bytes());
    out.extend(block.to_be_bytes());
    out.resize(out.len() + len, 0);
}

/// An OACK packet: the options agreed to, as the client spelled them.
pub fn oack(options: &[(String, u64)]) -> Vec<u8> {
    let mut bytes = OACK.to_be_bytes().to_vec();
    for (name, value) in options {
        bytes.extend(name.bytes());
        bytes.push(0);
        bytes.extend(value.to_string().bytes());
        bytes.push(0);
    }
    bytes
}

/// An ERROR packet.
pub fn error(refusal: Refusal) -> Vec<u8> {
    let (code, text): (u16, &str) = match refusal {
        Refusal::NotFound => (1, "no such file"),
        Refusal::AccessViolation => (2, "only loaders are read here, nothing is written"),
        Refusal::Unreadable => (0, "the file is gone, ask again"),
        Refusal::IllegalOperation => (4, "mode mail is not served"),
    };
    let mut bytes = ERROR.to_be_bytes().to_vec();
    bytes.extend(code.to_be_bytes());
    bytes.extend(text.bytes());
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests;
