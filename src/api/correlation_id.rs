//! What the door and the server say to each other about a request, in a header that no client can set.
//!
//! Every request that goes on carries a tag, and every response must bring its id back: so no answer can ever reach
//! another client, whatever goes wrong between the two.

use std::fmt;
use std::net::IpAddr;

use super::exchange::PutOff;

/// The header of the tag: the first one, of a request and of a response.
pub const HEADER: &str = "X-Lockhouse";
/// The method of a request that only proves that a connection is answered.
pub const PING: &str = "PING";
/// Follows the id in the tag of a response that is put off until what the client waits for has come.
const HELD: &str = "held";
/// Follows the id in the tag of a response that is put off until it is made.
const LATER: &str = "later";

/// The tag of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// The connection between door and server on which it goes.
    pub connection: u64,
    /// Its id; each has its own.
    pub id: u64,
    /// Where it comes from, as far as can be told.
    pub client: Option<IpAddr>,
}

impl Tag {
    /// Reads the value of the header.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let mut words = value.split(' ');
        let connection = u64::from_str_radix(words.next()?, 16).ok()?;
        let id = u64::from_str_radix(words.next()?, 16).ok()?;
        let client = match words.next()? {
            "-" => None,
            address => Some(address.parse().ok()?),
        };
        words.next().is_none().then_some(Self { connection, id, client })
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:x} {:x} {}", self.connection, self.id, Client(self.client))
    }
}

/// A client's address as it is shown; `-` for one that has none.
#[derive(Debug, Clone, Copy)]
pub struct Client(pub Option<IpAddr>);

impl fmt::Display for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => write!(formatter, "{address}"),
            None => formatter.write_str("-"),
        }
    }
}

/// The header line of an answer.
pub(super) fn answer(id: u64) -> String {
    format!("{HEADER}: {id:x}\r\n")
}

/// What says that the answer is put off.
pub(super) fn held(id: u64, put_off: PutOff) -> Vec<u8> {
    let word = match put_off {
        PutOff::UntilItComes => HELD,
        PutOff::UntilItIsMade => LATER,
    };
    format!("HTTP/1.1 204 No Content\r\n{HEADER}: {id:x} {word}\r\n\r\n").into_bytes()
}

/// What the word after the id of an answer means.
#[must_use]
pub fn put_off(word: &[u8]) -> Option<PutOff> {
    [(HELD, PutOff::UntilItComes), (LATER, PutOff::UntilItIsMade)]
        .into_iter()
        .find_map(|(known, put_off)| (known.as_bytes() == word).then_some(put_off))
}

/// The answer to a ping.
pub(super) fn pong(id: u64) -> Vec<u8> {
    format!("HTTP/1.1 204 No Content\r\n{}\r\n", answer(id)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_reads_back_as_itself() {
        for client in [None, "192.0.2.7".parse().ok(), "2001:db8::1".parse().ok()] {
            let tag = Tag { connection: 3, id: 0xfedc_ba98, client };
            assert_eq!(Tag::parse(&tag.to_string()), Some(tag));
        }
        for bad in ["", "1", "1 2", "1 2 x", "1 2 - -", "g 2 -", "1  2 -"] {
            assert_eq!(Tag::parse(bad), None, "{bad}");
        }
    }
}
