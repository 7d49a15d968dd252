//! Addresses, `http://` and `https://`, as far as RFC 3986 is needed for cameras: what may be shown of them, and whom they confide in.

use std::fmt;
use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;

use super::secret::without_secrets;

/// User and password as they are sent, decoded. There is no way to print them.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: Vec<u8>,
    /// The password; empty where none is given.
    pub password: Vec<u8>,
}

/// An address that can be asked.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Whether it is `https://`.
    pub tls: bool,
    /// Name or number, in lower case; an IPv6 address in brackets.
    host: String,
    /// TCP port.
    port: u16,
    /// Path and query, as they are asked for.
    pub target: String,
    /// Whom the address says to ask as.
    pub login: Option<Login>,
    /// As it was written, without its secrets.
    shown: String,
}

/// It may hold a password and keys, so it is printed without.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// A host and, where one is given, a port. The host is in lower case.
///
/// # Errors
/// What is wrong with it.
pub fn host_and_port(authority: &str) -> Result<(String, Option<u16>), &'static str> {
    // The colons of an IPv6 address are inside its brackets.
    let after_address = authority.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[after_address..].find(':') {
        Some(at) => {
            let (host, port) = authority.split_at(after_address + at);
            (host, &port[1..])
        }
        None => (authority, ""),
    };
    let port = match port {
        "" => None,
        port => Some(
            port.parse()
                .ok()
                .filter(|&port| port != 0)
                .ok_or("has a bad port")?,
        ),
    };
    let valid = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            !host.is_empty() && host.chars().all(fits)
        }
    };
    match valid {
        true => Ok((host.to_ascii_lowercase(), port)),
        false => Err("has a bad host"),
    }
}

impl Address {
    /// Reads an address. User and password are percent-decoded (RFC 3986 2.1).
    ///
    /// # Errors
    /// What is wrong with it; nothing of it is told, as it may hold a password.
    pub fn parse(url: &str) -> Result<Address, &'static str> {
        let (scheme, rest) = url.split_once("://").ok_or("has no scheme")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err("is of another scheme"),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (login, authority) = match authority.rsplit_once('@') {
            Some((login, authority)) => (Some(login).filter(|login| !login.is_empty()), authority),
            None => (None, authority),
        };
        let (host, port) = host_and_port(authority)?;
        let decoded = |text: &str| percent_decode_str(text).collect();
        let login = login.map(|login| {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            Login {
                user: decoded(user),
                password: decoded(password),
            }
        });
        let target = match target.starts_with('/') {
            true => target.to_owned(),
            false => format!("/{target}"),
        };
        Ok(Address {
            tls,
            host,
            port: port.unwrap_or(if tls { 443 } else { 80 }),
            target,
            login,
            shown: without_secrets(url).into_owned(),
        })
    }

    /// For people: neither user and password nor the query, where keys stand.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The address as it is asked, without user and password.
    pub fn asked(&self) -> String {
        let Address {
            host, port, target, ..
        } = self;
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{host}:{port}{target}")
    }

    /// Where a `Location` leads from here (RFC 3986 5.2), user and password left out.
    ///
    /// # Errors
    /// It leads nowhere that can be asked.
    pub fn redirected(&self, location: &str) -> Result<Address, &'static str> {
        let beginning = &location[..location.find(['/', '?', '#']).unwrap_or(location.len())];
        let mut to = if beginning.contains(':') {
            Address::parse(location)?
        } else if location.starts_with("//") {
            let scheme = if self.tls { "https:" } else { "http:" };
            Address::parse(&format!("{scheme}{location}"))?
        } else {
            let path = self.target.split('?').next().unwrap_or_default();
            let location = location.split('#').next().unwrap_or_default();
            let target = match location.chars().next() {
                Some('/') => location.to_owned(),
                Some('?') => format!("{path}{location}"),
                None => self.target.clone(),
                _ => {
                    let directory = &path[..path.rfind('/').map_or(0, |at| at + 1)];
                    format!("{directory}{location}")
                }
            };
            Address {
                target,
                ..self.clone()
            }
        };
        to.target = without_dots(&to.target);
        to.login = None;
        to.shown = without_secrets(&to.asked()).into_owned();
        Ok(to)
    }

    /// Whether it is on the same machine, by its name.
    pub fn same_host(&self, other: &Address) -> bool {
        self.host == other.host
    }

    /// Whether what is told to this address in confidence may be told to `other`: it is the same server, or the same machine and
    /// encrypted.
    pub fn confides_in(&self, other: &Address) -> bool {
        self.same_host(other) && (other.tls || (!self.tls && self.port == other.port))
    }

    /// Whether an entry of `redirect_hosts` means this address: the host, and the port where the entry has one.
    pub fn is_meant_by(&self, entry: &str) -> bool {
        host_and_port(entry).is_ok_and(|(host, port)| {
            host == self.host && port.is_none_or(|port| port == self.port)
        })
    }
}

/// A path and query whose path has no `.` and `..` (RFC 3986 5.2.4).
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (i, segment) in segments.iter().enumerate() {
        match *segment {
            "." | ".." => {
                if *segment == ".." {
                    kept.pop();
                }
                // A directory stays one.
                if i + 1 == segments.len() {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(url: &str) -> Option<(String, String)> {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let login = Address::parse(url).unwrap().login?;
        Some((text(login.user), text(login.password)))
    }

    #[test]
    fn user_and_password_are_decoded() {
        for (url, user, password) in [
            ("http://cam:se%40cret@host/a", "cam", "se@cret"),
            ("http://cam:se@cret@host/a", "cam", "se@cret"),
            ("http://cam:%2F%23%3F%3a%25@host", "cam", "/#?:%"),
            ("http://c%C3%A4m:gr%c3%bcn@host", "cäm", "grün"),
            ("http://cam:a:b@host", "cam", "a:b"),
            ("http://cam@host", "cam", ""),
            ("http://:key@host", "", "key"),
            // A `+` is no space, and what encodes nothing stands for itself.
            ("http://cam:a+b%zz%@host", "cam", "a+b%zz%"),
        ] {
            assert_eq!(
                login(url),
                Some((user.to_owned(), password.to_owned())),
                "{url}"
            );
            assert!(!Address::parse(url).unwrap().asked().contains('@'));
        }
        assert_eq!(login("http://host/a@b?c@d"), None);
        assert_eq!(login("http://@host/"), None);
    }

    #[test]
    fn addresses_are_asked_as_they_were_written() {
        for (url, asked) in [
            ("http://Host", "http://host:80/"),
            ("HTTPS://host?x=1#part", "https://host:443/?x=1"),
            (
                "http://[fe80::1]:81/A%20b?c=/d",
                "http://[fe80::1]:81/A%20b?c=/d",
            ),
        ] {
            assert_eq!(Address::parse(url).unwrap().asked(), asked);
        }
        for url in [
            "host/a",
            "ftp://host",
            "http://",
            "http://ho st/",
            "http://host:0/",
            "http://host:99999",
            "http://[::1/",
            "http://cam:a/b@host/",
        ] {
            assert!(Address::parse(url).is_err(), "{url}");
        }
    }

    /// The examples of RFC 3986 5.4 that lead somewhere.
    #[test]
    fn redirects_lead_where_the_standard_says() {
        let base = Address::parse("http://u:p@a/b/c/d;p?q").unwrap();
        for (location, leads_to) in [
            ("g", "/b/c/g"),
            ("./g", "/b/c/g"),
            ("g/", "/b/c/g/"),
            ("/g", "/g"),
            ("?y", "/b/c/d;p?y"),
            ("g?y", "/b/c/g?y"),
            ("g#s", "/b/c/g"),
            ("g;x=1/../y", "/b/c/y"),
            (";x", "/b/c/;x"),
            ("", "/b/c/d;p?q"),
            (".", "/b/c/"),
            ("./", "/b/c/"),
            ("..", "/b/"),
            ("../g", "/b/g"),
            ("../../..", "/"),
            ("../../../g", "/g"),
            ("/./g", "/g"),
            ("g?y/../x", "/b/c/g?y/../x"),
        ] {
            let to = base.redirected(location).unwrap();
            assert_eq!(
                (to.target.as_str(), to.host.as_str()),
                (leads_to, "a"),
                "{location}"
            );
            assert!(to.login.is_none());
        }
        assert_eq!(base.redirected("//g/x").unwrap().asked(), "http://g:80/x");
        assert_eq!(
            base.redirected("https://g:1/").unwrap().asked(),
            "https://g:1/"
        );
        assert!(base.redirected("rtsp://a/").is_err() && base.redirected("g:h").is_err());
    }

    #[test]
    fn confidence_ends_where_the_machine_or_the_encryption_ends() {
        let of = |url: &str| Address::parse(url).unwrap();
        let camera = of("http://cam:1080/a");
        for (other, trusted) in [
            ("http://cam:1080/b", true),
            ("https://cam/", true),
            ("http://cam/", false),
            ("http://cam.evil:1080/", false),
            ("https://evil/", false),
        ] {
            assert_eq!(camera.confides_in(&of(other)), trusted, "{other}");
        }
        assert!(!of("https://cam/").confides_in(&of("http://cam:443/")));
        let met = |entry| of("http://Cam:1080/").is_meant_by(entry);
        assert!(met("cam") && met("CAM:1080") && !met("cam:80") && !met("am"));
    }
}
