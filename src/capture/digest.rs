//! Digest access authentication (RFC 7616): that a password is known, without sending it.

use std::hash::{BuildHasher, Hasher, RandomState};

use md5::Md5;
use sha2::{Digest as _, Sha256};

use crate::guard::address::Login;

/// What a server asks of one scheme: `Basic realm="…"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    /// In lower case.
    pub(super) scheme: String,
    /// Names in lower case.
    parameters: Vec<(String, String)>,
}

/// The challenges of a `WWW-Authenticate` header (RFC 9110 11.6.1): several may stand in one, and quoted commas in each.
pub(super) fn challenges(header: &str) -> Vec<Challenge> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ',');
        let (word, behind) = rest.split_at(rest.find(|c| !is_token(c)).unwrap_or(rest.len()));
        if word.is_empty() {
            return found;
        }
        rest = behind;
        let value = behind.trim_start().strip_prefix('=');
        let (Some(value), Some(challenge)) = (value, found.last_mut()) else {
            found.push(Challenge {
                scheme: word.to_ascii_lowercase(),
                parameters: Vec::new(),
            });
            continue;
        };
        let value = value.trim_start();
        let (value, behind) = match value.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                let (value, behind) =
                    value.split_at(value.find([',', ' ', '\t']).unwrap_or(value.len()));
                (value.to_owned(), behind)
            }
        };
        challenge
            .parameters
            .push((word.to_ascii_lowercase(), value));
        rest = behind;
    }
}

/// What stands before the closing quotation mark, and what behind it.
fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    (value, "")
}

/// A challenge that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digest {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    /// As the server wrote it; none means MD5.
    algorithm: Option<String>,
    sha256: bool,
    /// The password counts for a session only.
    session: bool,
    qop: Option<&'static str>,
    userhash: bool,
    /// Only the nonce of the last answer was too old.
    pub(super) stale: bool,
    /// Answers that were given to it.
    pub(super) answers: u32,
}

impl Digest {
    /// The strongest of `challenges` that can be answered.
    pub(super) fn strongest(challenges: &[Challenge]) -> Option<Digest> {
        let known = challenges.iter().filter_map(Digest::of);
        // Of equals the first: servers list what they prefer first.
        known.reduce(|best, other| {
            if other.sha256 && !best.sha256 {
                other
            } else {
                best
            }
        })
    }

    fn of(challenge: &Challenge) -> Option<Digest> {
        let parameter = |name: &str| {
            let found = challenge.parameters.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone())
        };
        let is_true =
            |name| parameter(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let algorithm = parameter("algorithm");
        let written = algorithm.as_deref().unwrap_or("MD5").to_ascii_uppercase();
        let (name, session) = match written.strip_suffix("-SESS") {
            Some(name) => (name, true),
            None => (written.as_str(), false),
        };
        let sha256 = match name {
            "MD5" => false,
            "SHA-256" => true,
            _ => return None,
        };
        // The request has no body, so protecting it, too, costs nothing where a server insists.
        let qop = match parameter("qop") {
            None => None,
            Some(offered) => {
                let offers = |wanted: &&&str| {
                    offered
                        .split(',')
                        .any(|qop| qop.trim().eq_ignore_ascii_case(wanted))
                };
                Some(*["auth", "auth-int"].iter().find(offers)?)
            }
        };
        (challenge.scheme == "digest").then_some(())?;
        Some(Digest {
            realm: parameter("realm")?,
            nonce: parameter("nonce")?,
            opaque: parameter("opaque"),
            algorithm,
            sha256,
            session,
            qop,
            userhash: is_true("userhash"),
            stale: is_true("stale"),
            answers: 0,
        })
    }

    /// The `Authorization` header of the next `GET` of `target`.
    pub(super) fn answer(&mut self, login: &Login, target: &str) -> Vec<u8> {
        self.answers += 1;
        let random = || RandomState::new().build_hasher().finish();
        let cnonce = format!("{:016x}{:016x}", random(), random());
        self.header(login, target, &cnonce)
    }

    fn header(&self, login: &Login, target: &str, cnonce: &str) -> Vec<u8> {
        let (user, realm, nonce) = (
            &login.user[..],
            self.realm.as_bytes(),
            self.nonce.as_bytes(),
        );
        let mut secret = self.hash(&[user, realm, &login.password]);
        if self.session {
            secret = self.hash(&[secret.as_bytes(), nonce, cnonce.as_bytes()]);
        }
        let asked = match self.qop {
            Some("auth-int") => self.hash(&[b"GET", target.as_bytes(), self.hash(&[]).as_bytes()]),
            _ => self.hash(&[b"GET", target.as_bytes()]),
        };
        let count = format!("{:08x}", self.answers);
        let response = match self.qop {
            Some(qop) => self.hash(&[
                secret.as_bytes(),
                nonce,
                count.as_bytes(),
                cnonce.as_bytes(),
                qop.as_bytes(),
                asked.as_bytes(),
            ]),
            // RFC 2069, which old cameras speak.
            None => self.hash(&[secret.as_bytes(), nonce, asked.as_bytes()]),
        };
        let hashed = self.hash(&[user, realm]);
        let mut header = b"Digest username=".to_vec();
        header.extend(quoted(if self.userhash {
            hashed.as_bytes()
        } else {
            user
        }));
        let mut add = |name: &str, value: &[u8]| {
            header.extend(format!(", {name}=").as_bytes());
            header.extend(value);
        };
        add("realm", &quoted(realm));
        add("nonce", &quoted(nonce));
        add("uri", &quoted(target.as_bytes()));
        add("response", &quoted(response.as_bytes()));
        if let Some(algorithm) = &self.algorithm {
            add("algorithm", algorithm.as_bytes());
        }
        if let Some(opaque) = &self.opaque {
            add("opaque", &quoted(opaque.as_bytes()));
        }
        if let Some(qop) = self.qop {
            add("qop", qop.as_bytes());
            add("nc", count.as_bytes());
        }
        if self.qop.is_some() || self.session {
            add("cnonce", &quoted(cnonce.as_bytes()));
        }
        if self.userhash {
            add("userhash", b"true");
        }
        header
    }

    /// The hash of `parts` with colons between them, in hexadecimal.
    fn hash(&self, parts: &[&[u8]]) -> String {
        let joined = parts.join(&b':');
        match self.sha256 {
            true => hex::encode(Sha256::digest(joined)),
            false => hex::encode(Md5::digest(joined)),
        }
    }
}

fn quoted(text: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'"'];
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str, password: &str) -> Login {
        Login {
            user: user.into(),
            password: password.into(),
        }
    }

    /// The first answer to `challenge`.
    fn answer(challenge: &str, login: &Login, target: &str, cnonce: &str) -> String {
        let mut digest = Digest::strongest(&challenges(challenge)).unwrap();
        digest.answers = 1;
        String::from_utf8(digest.header(login, target, cnonce)).unwrap()
    }

    /// RFC 7616 3.9.1, and 3.5 of RFC 2617.
    #[test]
    fn the_examples_of_the_standards_are_answered_as_there() {
        let realm = "http-auth@example.org";
        let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
        let opaque = "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS";
        let of = |algorithm: &str| {
            format!(
                "Digest realm=\"{realm}\", qop=\"auth, auth-int\", algorithm={algorithm}, nonce=\"{nonce}\", opaque=\"{opaque}\""
            )
        };
        let mufasa = login("Mufasa", "Circle of Life");
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        for (algorithm, response) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            (
                "SHA-256",
                "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            ),
        ] {
            let answer = answer(&of(algorithm), &mufasa, "/dir/index.html", cnonce);
            for part in [
                "Digest username=\"Mufasa\"".to_owned(),
                format!("realm=\"{realm}\""),
                "uri=\"/dir/index.html\"".to_owned(),
                format!("algorithm={algorithm}"),
                format!("nonce=\"{nonce}\""),
                "nc=00000001".to_owned(),
                format!("cnonce=\"{cnonce}\""),
                "qop=auth,".to_owned(),
                format!("response=\"{response}\""),
                format!("opaque=\"{opaque}\""),
            ] {
                assert!(answer.contains(&part), "{part}: {answer}");
            }
        }
        // Both are offered: the stronger one is taken, in one header or two, whatever stands first.
        let both = format!("Basic realm=\"x, y\", {}, {}", of("MD5"), of("SHA-256"));
        assert!(answer(&both, &mufasa, "/", "c").contains("algorithm=SHA-256"));
        let old = "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\"";
        let answer = answer(
            old,
            &login("Mufasa", "Circle Of Life"),
            "/dir/index.html",
            "0a4f113b",
        );
        assert!(
            answer.contains("response=\"6629fae49393a05397450978507c4ef1\""),
            "{answer}"
        );
    }

    /// What curl 7.88 answered to the same challenges.
    #[test]
    fn challenges_of_every_kind_are_answered_as_curl_does() {
        let login = login("c\"am", "se@cr:et");
        for (i, (challenge, cnonce, response)) in [
            ("Digest realm=\"gate \\\"1\\\"\", nonce=\"abc==\", algorithm=MD5", "", "93bb259b9883f6888c347f7d5e418259"),
            (
                "Digest realm=\"gate\", nonce=\"n1\", algorithm=MD5-sess, qop=\"auth-int,auth\", opaque=\"op\"",
                "NTAwMTYyMjZlYTIyOGM3YmNiNDRhZWVkYzI2ZTU1ODE=",
                "e5776fbff15b29e1f8832bce3771969f",
            ),
            (
                "Digest realm=\"gate\", nonce=\"n1\", algorithm=SHA-256, qop=\"auth\", opaque=\"op\"",
                "ZDQ4YjUzMTY5ZTE3YWQxMTNhZTRjMDU3Y2RjODRjMjQ=",
                "56c044459dfdf8dd4f8a9a6f14e7c19dbe49e03a82fe57eefde8dbdb99937a46",
            ),
            (
                "Digest realm=\"gate\", nonce=\"n2\", algorithm=SHA-256-sess, qop=\"auth\"",
                "MmNhYmNhOTA0YjdkOGQ4M2U4NTk5MTI1YzM3MmJhZGI=",
                "4cf79bc3ff4eb7fe460d6508a3540b76901c479157eb45b8d5813ebaf5c7084a",
            ),
            (
                "Digest realm=\"gate\", nonce=\"n2\", algorithm=SHA-256, qop=\"auth\", userhash=true",
                "MzA4NjFkY2Q2NWMwMmIwNmQ1ZWJhY2MwY2Q4MjdhMTI=",
                "d410ab42febc0cfeaf4b84ffa34f8a6a379a500365f4912e02e270fea5264b84",
            ),
        ]
        .into_iter()
        .enumerate()
        {
            let answer = answer(challenge, &login, &format!("/{i}/a.jpg?x=1&y=2"), cnonce);
            assert!(answer.contains(&format!("response=\"{response}\"")), "{i}: {answer}");
            let user = match i {
                4 => "username=\"fcb7b765a5b0f17e20fed4fbd20d317b69695f53d82855cacbcfda5e48b44f89\"",
                _ => "username=\"c\\\"am\"",
            };
            assert!(answer.contains(user), "{answer}");
        }
    }

    #[test]
    fn challenges_are_told_apart_and_what_is_not_understood_is_left() {
        let found = challenges(
            "Negotiate, NTLM , Basic realm = \"a, \\\"b\\\"\",digest Realm=x,nonce=\"1\" , stale=TRUE",
        );
        let schemes: Vec<&str> = found.iter().map(|c| c.scheme.as_str()).collect();
        assert_eq!(schemes, ["negotiate", "ntlm", "basic", "digest"]);
        assert_eq!(
            found[2].parameters,
            [("realm".to_owned(), "a, \"b\"".to_owned())]
        );
        let digest = Digest::strongest(&found).unwrap();
        assert!(digest.stale && digest.realm == "x" && digest.qop.is_none());
        for other in [
            "",
            "=",
            "Digest",
            "Digest realm=\"x\"",
            "Digest realm=\"x\", nonce=\"1\", algorithm=SHA-512-256",
            "Digest realm=\"x\", nonce=\"1\", qop=\"other\"",
            "Basic realm=\"x\", nonce=\"1\"",
            "Digest realm=\"x\", nonce=\"",
        ] {
            let found = Digest::strongest(&challenges(other));
            assert!(
                found.is_none_or(|digest| digest.nonce.is_empty()),
                "{other}"
            );
        }
        // Each answer to a nonce has another count and another nonce of the client.
        let mut digest =
            Digest::strongest(&challenges("Digest realm=\"x\", nonce=\"1\", qop=\"auth\""))
                .unwrap();
        let answers =
            [1, 2].map(|_| String::from_utf8(digest.answer(&login("a", "b"), "/")).unwrap());
        assert!(answers[0].contains("nc=00000001") && answers[1].contains("nc=00000002"));
        let cnonce = |answer: &str| answer.split("cnonce=").nth(1).unwrap().to_owned();
        assert_ne!(cnonce(&answers[0]), cnonce(&answers[1]));
    }
}
