//! TLS as people make it at home: which certificates are trusted, beside what mosquitto's own client makes of them, and what is told
//! of the others. Keys and certificates are made here, by openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

use gemmad::publish::mqtt::MqttOptions;

use super::bench::{Broker, Node, config, free_port};
use super::faults::openssl;
use super::probe::{one_trouble, troubles};

/// A directory of certificates.
struct Made {
    dir: tempfile::TempDir,
}

impl Made {
    /// An authority `ca.pem`, and keys and requests for servers.
    fn new() -> Made {
        let made = Made {
            dir: tempfile::tempdir().unwrap(),
        };
        made.authority("ca", "/CN=Home");
        made.openssl(
            "req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout key.pem -out named.csr",
        );
        made
    }

    fn at(&self) -> &Path {
        self.dir.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.at().join(name)
    }

    fn openssl(&self, arguments: &str) {
        openssl(self.at(), arguments);
    }

    fn authority(&self, name: &str, subject: &str) {
        self.openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes -subj {subject} -keyout {name}.key -out {name}.pem -days 9"
        ));
    }

    /// As `openssl req -x509` makes it: an authority that signed itself.
    fn signed_by_itself(&self, name: &str, alternative: &str) {
        self.openssl(&format!(
            "req -x509 -key key.pem -subj /CN=127.0.0.1 -addext subjectAltName={alternative} -out {name}.pem -days 9"
        ));
    }

    /// Signed by an authority, with these extensions.
    fn signed(&self, name: &str, authority: &str, extensions: &str) {
        std::fs::write(self.path("extensions"), extensions).unwrap();
        self.openssl(&format!(
            "x509 -req -in named.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -out {name}.pem -days 9 -extfile extensions"
        ));
    }

    /// Of version 1, signed by `signer` (`-CA … -CAkey …`, or `-signkey …`).
    fn version_1(&self, name: &str, signer: &str) {
        // Newer releases of openssl have to be asked for it.
        let make = |more: &str| {
            let arguments =
                format!("x509 -req -in named.csr {signer} -out {name}.pem -days 9{more}");
            let mut command = Command::new("openssl");
            command.current_dir(self.at()).args(arguments.split(' '));
            assert!(command.output().unwrap().status.success() || !more.is_empty());
            let shown = Command::new("openssl")
                .current_dir(self.at())
                .args(["x509", "-noout", "-text", "-in", &format!("{name}.pem")])
                .output()
                .unwrap();
            String::from_utf8(shown.stdout)
                .unwrap()
                .contains("Version: 1 ")
        };
        assert!(make("") || make(" -x509v1"), "openssl makes no version 1");
    }

    /// Signed by itself, valid from and to these times.
    fn dated(&self, name: &str, from: &str, to: &str) {
        let policy = "[ca]\ndefault_ca = d\n[d]\ndatabase = index\nserial = serial\nnew_certs_dir = .\ndefault_md = sha256\npolicy = p\n\
                      unique_subject = no\n[p]\ncommonName = supplied\n[v]\nsubjectAltName = IP:127.0.0.1\n";
        std::fs::write(self.path("ca.cnf"), policy).unwrap();
        std::fs::write(self.path("index"), "").unwrap();
        std::fs::write(self.path("serial"), "01\n").unwrap();
        self.openssl(&format!(
            "ca -config ca.cnf -batch -notext -selfsign -keyfile key.pem -in named.csr -out {name}.pem -startdate {from} -enddate {to} -extensions v"
        ));
    }

    /// A broker that shows this certificate.
    fn broker(&self, name: &str, more: &str) -> Broker {
        let settings = format!(
            "allow_anonymous true\ncertfile {0}/{name}.pem\nkeyfile {0}/key.pem\n{more}",
            self.at().display()
        );
        Broker::start_with(self.at(), free_port(), &settings)
    }

    fn config(&self, broker: &Broker, host: &str, ca: &str) -> MqttOptions {
        MqttOptions {
            url: format!("mqtts://{host}:{}", broker.port),
            ca_file: Some(self.path(&format!("{ca}.pem"))),
            ..config(broker.port)
        }
    }
}

/// Whether mosquitto's own client connects.
fn mosquitto_connects(config: &MqttOptions) -> bool {
    let broker = config.broker().unwrap();
    let mut command = Command::new("mosquitto_sub");
    command
        .args(["-h", &broker.host, "-p", &broker.port.to_string()])
        .args(["-E", "-t", "x", "--cafile"])
        .arg(config.ca_file.as_ref().unwrap());
    command.output().unwrap().status.success()
}

#[test]
fn the_very_certificate_of_ca_file_is_trusted_where_mosquittos_client_does_and_no_further() {
    let made = Made::new();
    made.signed_by_itself("address", "IP:127.0.0.1");
    made.signed_by_itself("elsewhere", "DNS:elsewhere.example,IP:10.1.2.3");
    made.version_1("old", "-signkey key.pem");
    let for_host = "the broker's certificate is for";
    for openssl in ["TLSv1.2", "TLSv1.3"] {
        let limits = format!(
            "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\nMinProtocol = {openssl}\nMaxProtocol = {openssl}\n"
        );
        std::fs::write(made.path("openssl.cnf"), limits).unwrap();
        for (name, host, trouble) in [
            ("address", "127.0.0.1", None),
            (
                "address",
                "localhost",
                Some([
                    "for IP:127.0.0.1, not for localhost",
                    "subjectAltName (DNS:localhost)",
                ]),
            ),
            (
                "elsewhere",
                "127.0.0.1",
                Some([
                    "for DNS:elsewhere.example, IP:10.1.2.3, not for 127.0.0.1",
                    "subjectAltName (IP:127.0.0.1)",
                ]),
            ),
            // Without a subjectAltName it is the common name that counts, for them as for us.
            ("old", "127.0.0.1", None),
            (
                "old",
                "localhost",
                Some(["CN=127.0.0.1", "not for localhost"]),
            ),
        ] {
            let broker = made.broker(name, "");
            let config = made.config(&broker, host, name);
            match trouble {
                None => assert_eq!(troubles(&config), [""; 0], "{name} {openssl}"),
                Some(words) => one_trouble(&config, &[&[for_host], &words[..]].concat(), &[]),
            }
            assert_eq!(
                mosquitto_connects(&config),
                trouble.is_none(),
                "{name} {host}"
            );
        }
    }
    // The daemon, as the doctor.
    let broker = made.broker("address", "");
    let node = Node::start(&made.config(&broker, "127.0.0.1", "address"));
    node.wait_connected();
    node.stop();
    // Whoever shows the certificate without having its key is nobody; another's certificate is not the one that was given.
    made.openssl("req -x509 -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -keyout other.key -out other.pem -days 9");
    let config = made.config(&broker, "127.0.0.1", "other");
    let words = [
        "signed by itself",
        "CN=127.0.0.1",
        "mqtt.ca_file has to hold this very certificate",
    ];
    one_trouble(&config, &words, &[]);
    assert!(!mosquitto_connects(&config));
}

#[test]
fn certificates_that_cannot_be_trusted_are_told_with_what_to_make() {
    let made = Made::new();
    made.authority("stranger", "/CN=Stranger");
    made.version_1("old", "-CA ca.pem -CAkey ca.key -CAcreateserial");
    made.signed("good", "ca", "subjectAltName=IP:127.0.0.1,DNS:localhost");
    made.signed("nameless", "ca", "keyUsage=digitalSignature");
    made.signed("elsewhere", "ca", "subjectAltName=DNS:elsewhere.example");
    made.signed(
        "client",
        "ca",
        "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=clientAuth",
    );
    made.dated("expired", "20200101000000Z", "20200201000000Z");
    made.dated("early", "20980101000000Z", "20990101000000Z");
    let wanted = "make one with subjectAltName (IP:127.0.0.1)";
    for (name, ca, words) in [
        (
            "old",
            "ca",
            vec![
                "the broker's certificate is of X.509 version 1",
                wanted,
                "this very certificate as mqtt.ca_file",
            ],
        ),
        (
            "nameless",
            "ca",
            vec!["for CN=127.0.0.1, without a subjectAltName", wanted],
        ),
        (
            "elsewhere",
            "ca",
            vec!["for DNS:elsewhere.example, not for 127.0.0.1", wanted],
        ),
        (
            "client",
            "ca",
            vec!["is not made for servers", "serverAuth"],
        ),
        (
            "good",
            "stranger",
            vec![
                "is signed by CN=Home, who is not trusted",
                "mqtt.ca_file has to hold the certificate of that authority",
            ],
        ),
        (
            "expired",
            "expired",
            vec![
                "expired on 2020-02-01T00:00:00Z, and here it is 20",
                "make a new one",
            ],
        ),
        ("expired", "ca", vec!["expired on 2020-02-01T00:00:00Z"]),
        (
            "early",
            "early",
            vec![
                "is valid from 2098-01-01T00:00:00Z on, and here it is 20",
                "timedatectl",
            ],
        ),
    ] {
        let broker = made.broker(name, "");
        one_trouble(
            &made.config(&broker, "127.0.0.1", ca),
            &words,
            &["mqtt.username"],
        );
    }
    // What makes them good.
    let broker = made.broker("old", "");
    assert_eq!(troubles(&made.config(&broker, "127.0.0.1", "old")), [""; 0]);
    drop(broker);
    let broker = made.broker("good", "");
    assert_eq!(troubles(&made.config(&broker, "127.0.0.1", "ca")), [""; 0]);
    // An authority of the same name, made anew.
    made.authority("again", "/CN=Home");
    let config = made.config(&broker, "127.0.0.1", "again");
    one_trouble(
        &config,
        &["another of that name signed it", "made anew"],
        &[],
    );
    drop(broker);

    let more = format!(
        "cafile {}\nrequire_certificate true\n",
        made.path("ca.pem").display()
    );
    let broker = made.broker("good", &more);
    let config = made.config(&broker, "127.0.0.1", "ca");
    let words = [
        "wants a certificate of its clients",
        "mqtt.client_certificate_file",
    ];
    one_trouble(&config, &words, &["gemmad/pi/#"]);
    made.openssl(
        "req -x509 -newkey rsa:2048 -nodes -subj /CN=me -keyout me.key -out me.pem -days 9",
    );
    let stranger = MqttOptions {
        client_certificate_file: Some(made.path("me.pem")),
        client_key_file: Some(made.path("me.key")),
        ..config.clone()
    };
    let words = [
        "does not take this client's certificate",
        "the authority that signed it",
    ];
    one_trouble(&stranger, &words, &["gemmad/pi/#"]);
    let mixed = MqttOptions {
        client_key_file: Some(made.path("ca.key")),
        ..stranger.clone()
    };
    one_trouble(
        &mixed,
        &[
            "mqtt.client_certificate_file",
            "is not the key of this certificate",
        ],
        &[],
    );
    let no_certificate = MqttOptions {
        ca_file: Some(made.path("me.key")),
        ..config
    };
    one_trouble(
        &no_certificate,
        &["mqtt.ca_file", "no certificate in PEM form"],
        &[],
    );
}
