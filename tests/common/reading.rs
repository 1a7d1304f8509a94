//! A second parser of RFC 9112, slow and simple, to compare the framer with. It takes the bytes as a whole, and
//! shares nothing with `server::parser` but the types of the result.

use lockhouse::server::parser::{After, Framer, Limits, Progress, Version};

/// Compares the two parsers. The first byte says where to cut the others. Limits are
/// small, so that they are met.
pub fn agree(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let limits = Limits { head_bytes: 200, headers: 6, body_bytes: 40 };
    let whole = parse_with_framer(&[bytes], &limits);
    let (left, right) = bytes.split_at(bytes.len() * usize::from(*cut) / 256);
    assert_eq!(whole, parse_with_framer(&[left, right], &limits));
    assert_eq!(whole, parse_by_rfc(bytes, &limits));
}

/// A parsed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub method: String,
    pub target: String,
    pub version: Version,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub after: After,
    pub expects_continue: bool,
}

/// What follows the last complete request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    Nothing,
    PartOfAHead,
    PartOfABody,
    Refused,
}

/// The requests that the framer finds in these bytes when they arrive in these pieces.
pub fn parse_with_framer(pieces: &[&[u8]], limits: &Limits) -> (Vec<Read>, Rest) {
    let (mut framer, mut requests) = (Framer::default(), Vec::new());
    let mut rest = Rest::Nothing;
    for piece in pieces {
        framer.push(piece);
        loop {
            rest = match framer.progress(limits) {
                Err(_) => Rest::Refused,
                Ok(Progress::Nothing) => Rest::Nothing,
                Ok(Progress::Head) => Rest::PartOfAHead,
                Ok(Progress::Body { .. }) => Rest::PartOfABody,
                Ok(Progress::Complete(request)) => {
                    let head = request.head;
                    requests.push(Read {
                        method: head.method.to_owned(),
                        target: head.target.to_owned(),
                        version: head.version,
                        headers: head
                            .headers
                            .iter()
                            .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                            .collect(),
                        body: request.body.to_vec(),
                        after: head.after,
                        expects_continue: head.expects_continue,
                    });
                    framer.consume();
                    continue;
                }
            };
            break;
        }
    }
    (requests, rest)
}

/// The requests by RFC 9112, as strict as the server promises.
pub fn parse_by_rfc(bytes: &[u8], limits: &Limits) -> (Vec<Read>, Rest) {
    let mut rest = bytes;
    let mut requests = Vec::new();
    loop {
        // §2.2: a server should ignore an empty line before the request line.
        if let Some(after_empty_line) = rest.strip_prefix(b"\r\n") {
            rest = after_empty_line;
        } else if rest == b"\r" {
            return (requests, Rest::Nothing);
        }
        if rest.is_empty() {
            return (requests, Rest::Nothing);
        }
        match one(rest, limits) {
            Ok((request, length)) => {
                requests.push(request);
                rest = &rest[length..];
            }
            Err(why) => return (requests, why),
        }
    }
}

fn one(bytes: &[u8], limits: &Limits) -> Result<(Read, usize), Rest> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|position| position + 4);
    let head = &bytes[..end.unwrap_or(bytes.len())];
    let mut within_limit = &head[..head.len().min(limits.head_bytes)];
    // Whether a CR at the very end is followed by LF is not known yet.
    if within_limit.last() == Some(&b'\r') {
        within_limit = &within_limit[..within_limit.len() - 1];
    }
    let text: String = within_limit.iter().map(|byte| char::from(*byte)).collect();
    let without_line_ends = text.replace("\r\n", "");
    if without_line_ends.chars().any(|letter| letter.is_ascii_control() && letter != '\t')
        || text.starts_with("\r\n")
    {
        return Err(Rest::Refused);
    }
    match end {
        Some(end) if end <= limits.head_bytes => {}
        _ if head.len() >= limits.head_bytes => return Err(Rest::Refused),
        _ => return Err(Rest::PartOfAHead),
    }
    let (mut request, body_length) = parse_head(&text, limits).ok_or(Rest::Refused)?;
    let rest = &bytes[head.len()..];
    let Some(body_length) = body_length else {
        // The last chunk, and an empty trailer (§7.1).
        let after = rest.strip_prefix(b"0\r\n\r\n");
        let is_begun = b"0\r\n\r\n".starts_with(rest);
        let after = after.ok_or(if is_begun { Rest::PartOfABody } else { Rest::Refused })?;
        return Ok((request, bytes.len() - after.len()));
    };
    let Some(body) = rest.get(..body_length) else { return Err(Rest::PartOfABody) };
    request.body = body.to_vec();
    Ok((request, head.len() + body_length))
}

/// The head, one Latin-1 character a byte, and how long the body is; no length if it is sent in chunks.
fn parse_head(text: &str, limits: &Limits) -> Option<(Read, Option<usize>)> {
    let mut lines = text.strip_suffix("\r\n\r\n")?.split("\r\n");
    let words: Vec<&str> = lines.next()?.split(' ').collect();
    let [method, target, version] = words[..] else { return None };
    let version = match version {
        "HTTP/1.1" => Version::Http11,
        "HTTP/1.0" => Version::Http10,
        _ => return None,
    };
    if !is_token(method) || method.len() > 32 {
        return None;
    }
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        if !is_token(name) {
            return None;
        }
        let value = value.trim_matches([' ', '\t']);
        headers.push((name.to_owned(), latin_1(value)));
    }
    if headers.len() > limits.headers {
        return None;
    }
    let all = |name: &str| -> Vec<String> {
        headers
            .iter()
            .filter(|(known, _)| known.to_lowercase() == name)
            .map(|(_, value)| value.iter().map(|byte| char::from(*byte)).collect())
            .collect()
    };
    match &all("host")[..] {
        [] if version == Version::Http10 => {}
        [host] if host.chars().all(is_host_character) => {}
        _ => return None,
    }
    let target = path_of(method, target)?;
    let body_length = match (&all("transfer-encoding")[..], &all("content-length")[..]) {
        ([], []) => Some(0),
        // Only Terraform may send chunks, and none that has anything in it.
        ([encoding], []) if encoding == "chunked" && version == Version::Http11 => {
            target.starts_with("/terraform/").then_some(None)?
        }
        ([], [digits]) if !digits.is_empty() && digits.chars().all(|letter| letter.is_ascii_digit()) => {
            // A number beyond 64 bits is too large whatever it is.
            let significant = digits.trim_start_matches('0');
            if significant.len() > 18 {
                return None;
            }
            Some(format!("0{significant}").parse().ok()?)
        }
        _ => return None,
    };
    if body_length.is_some_and(|length| length > limits.body_bytes) {
        return None;
    }
    let expectations = all("expect");
    if expectations.iter().any(|expected| !expected.eq_ignore_ascii_case("100-continue")) {
        return None;
    }
    let mut options = Vec::new();
    for value in all("connection") {
        // What is no UTF-8 is no list of names.
        String::from_utf8(latin_1(&value)).ok()?;
        options.extend(value.split(',').map(|option| option.trim_matches([' ', '\t']).to_ascii_lowercase()));
    }
    let has = |option: &str| options.iter().any(|known| known == option);
    let keeps = match version {
        Version::Http11 => !has("close"),
        Version::Http10 => has("keep-alive") && !has("close"),
    };
    let request = Read {
        method: method.to_owned(),
        target,
        version,
        body: Vec::new(),
        after: if keeps { After::KeepAlive } else { After::Close },
        expects_continue: !expectations.is_empty() && version == Version::Http11 && body_length != Some(0),
        headers,
    };
    Some((request, body_length))
}

fn path_of(method: &str, target: &str) -> Option<String> {
    if target.chars().any(|letter| !('!'..='~').contains(&letter) || letter == '#') {
        return None;
    }
    if target.starts_with('/') || (method == "OPTIONS" && target == "*") {
        return Some(target.to_owned());
    }
    let (scheme, rest) = target.split_once("://")?;
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return None;
    }
    let (host, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    (!host.is_empty() && host.chars().all(is_host_character)).then(|| path.to_owned())
}

/// The bytes of a text that has one character for each.
fn latin_1(text: &str) -> Vec<u8> {
    text.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap()).collect()
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter))
}

fn is_host_character(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:%[]".contains(letter)
}
