//! DHCP options: the raw bytes of a request -> values by code.
//!
//! dhcproto's decoder drops every option behind a malformed one and panics on some lengths, so
//! network bytes are walked here; what rekindle sends is encoded with it.

use std::collections::BTreeMap;

use dhcproto::v4::OptionCode;

const PAD: u8 = 0;
const OVERLOAD: u8 = 52;
const END: u8 = 255;

/// The options of one packet, by code. Holds at most the bytes of that packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<u8, Vec<u8>>);

impl Options {
    /// Collects the options of `vend` and, where option 52 says so, of `file` and then `sname`
    /// (RFC 2131 section 4.1). Options of one code are concatenated wherever they stand
    /// (RFC 3396 section 7). There is no malformed input: a truncated option ends its field.
    pub fn parse(vend: &[u8], file: &[u8], sname: &[u8]) -> Self {
        let mut options = Self::default();
        options.collect(vend);
        let overload = options.first(OVERLOAD).unwrap_or(0);
        if overload & 1 != 0 {
            options.collect(file);
        }
        if overload & 2 != 0 {
            options.collect(sname);
        }
        options
    }

    /// The value of an option, whatever its length.
    pub fn get(&self, code: OptionCode) -> Option<&[u8]> {
        self.0.get(&u8::from(code)).map(Vec::as_slice)
    }

    /// The value of an option that has exactly `N` bytes; of any other length it counts as absent.
    pub fn fixed<const N: usize>(&self, code: OptionCode) -> Option<[u8; N]> {
        self.get(code)?.try_into().ok()
    }

    /// The value of a text option without the NULs some clients end it with.
    pub fn text(&self, code: OptionCode) -> Option<&[u8]> {
        self.get(code).map(trim_nuls)
    }

    fn first(&self, code: u8) -> Option<u8> {
        self.0.get(&code)?.first().copied()
    }

    fn collect(&mut self, field: &[u8]) {
        for (code, value) in walk(field) {
            self.0.entry(code).or_default().extend_from_slice(value);
        }
    }
}

/// The code-length-value triples of a field, also of the ones inside options 43 and 175.
pub fn walk(mut field: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        loop {
            match *field {
                [PAD, ref rest @ ..] => field = rest,
                [] | [END, ..] | [_] => return None,
                [code, len, ref rest @ ..] => {
                    let (value, rest) = rest.split_at_checked(usize::from(len))?;
                    field = rest;
                    return Some((code, value));
                }
            }
        }
    })
}

/// Cuts the NULs off that some clients end texts with.
pub fn trim_nuls(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests;
