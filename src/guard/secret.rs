//! Addresses without their secrets, for people: for the log, for errors, for what is published.

use std::borrow::Cow;

/// A text without the secrets of the addresses in it: of `scheme://USER:PASSWORD@HOST/PATH?KEY=VALUE#…` stays `scheme://HOST/PATH`, and
/// of a path alone what stands before `?KEY=`.
pub fn without_secrets(text: &str) -> Cow<'_, str> {
    if !text.contains("://") && !text.contains('?') {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = next_address(rest) {
        let (before, from) = rest.split_at(at);
        shown.push_str(before);
        let (address, after) = from.split_at(end(from));
        shown.push_str(&bare(address));
        rest = after;
    }
    shown.push_str(rest);
    if shown == text {
        return Cow::Borrowed(text);
    }
    Cow::Owned(shown)
}

/// Where the next address begins (behind its scheme), or the next query.
fn next_address(text: &str) -> Option<usize> {
    let address = text.find("://");
    let mut queries = text.match_indices('?').map(|(at, _)| at);
    let query = queries.find(|at| is_query(&text[*at..]));
    match (address, query) {
        (Some(address), Some(query)) => Some(address.min(query)),
        (found, None) | (None, found) => found,
    }
}

/// Whether `?` is followed by a key and `=`, as no question is.
fn is_query(text: &str) -> bool {
    let key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '%' | '[' | ']');
    let rest = text[1..].trim_start_matches(key);
    rest.len() + 1 < text.len() && rest.starts_with('=')
}

/// Where an address ends: at white space, or at what it may have been put into.
fn end(text: &str) -> usize {
    let closes =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '`' | '<' | '>');
    text.find(closes).unwrap_or(text.len())
}

/// `://USER:PASSWORD@HOST/PATH?QUERY#FRAGMENT`, or a query alone, without what is nobody's business. What stands behind it in a sentence,
/// as a comma, goes with the query.
fn bare(address: &str) -> String {
    let Some(rest) = address.strip_prefix("://") else {
        return String::new();
    };
    // Whoever writes a password as it is may have `/`, `?` or `#` in it: what looks like a port is none then.
    let rest = match rest.rsplit_once('@') {
        Some((_, host)) if !has_port(authority(rest)) => host,
        _ => rest,
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = rest.split_at(authority(rest).len());
    let host = host.rsplit('@').next().unwrap_or_default();
    let host = match host.rsplit_once(':') {
        Some((name, _)) if !has_port(host) => name,
        _ => host,
    };
    format!("://{host}{path}")
}

/// What stands before path, query and fragment.
fn authority(rest: &str) -> &str {
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// Whether what stands behind the last colon outside of brackets, if anything does, is a port.
fn has_port(authority: &str) -> bool {
    let host = authority.rsplit('@').next().unwrap_or_default();
    let behind = host.rsplit(']').next().unwrap_or_default();
    behind
        .rsplit_once(':')
        .is_none_or(|(_, port)| port.chars().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_passwords_and_queries_go_and_the_rest_stays() {
        for (text, shown) in [
            (
                "nothing to hide: what? 1 == 1",
                "nothing to hide: what? 1 == 1",
            ),
            (
                "http://host:1984/a.jpeg?src=x&key=1",
                "http://host:1984/a.jpeg",
            ),
            ("https://cat:s3@cret@host/a@b?c#d", "https://host/a@b"),
            ("mqtt://broker?token=s3cret", "mqtt://broker"),
            ("wss://broker/mqtt#s3cret", "wss://broker/mqtt"),
            (
                "GET http://u:s3cret@h/x?token=s3cret HTTP/1.1",
                "GET http://h/x HTTP/1.1",
            ),
            (
                "uri: \"https://h/p?token=s3cret\", and \"http://s3cret@h2/\"",
                "uri: \"https://h/p\", and \"http://h2/\"",
            ),
            (
                "GET /snap.jpg?token=s3cret&x=1 HTTP/1.1",
                "GET /snap.jpg HTTP/1.1",
            ),
            ("Location: ?a[0]=s3cret", "Location: "),
            ("mqtts://[fd00::2]:8883/x?y", "mqtts://[fd00::2]:8883/x"),
            ("http://u:s3/c?r#et@h:80/x?y", "http://h:80/x"),
            ("http://u:s3 cret", "http://u cret"),
            ("ünï://cät:s3cret@häuser/ö?ä=s3cret ß", "ünï://häuser/ö ß"),
            ("a://", "a://"),
            ("?", "?"),
        ] {
            assert_eq!(without_secrets(text), shown);
            assert_eq!(without_secrets(shown), shown, "twice is once");
        }
    }
}
