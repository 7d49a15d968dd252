//! A real NATS server.

#![allow(
    dead_code,
    reason = "every test binary that has this module uses a part of it"
)]

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::broker::{free_port, wait_until};

/// nats-server on a port of its own, with JetStream in a directory.
pub(crate) struct Nats {
    child: Child,
    /// Where it listens.
    host: String,
    pub(crate) port: u16,
    config: PathBuf,
    /// The network namespace that it runs in, where it is not this one.
    space: Option<String>,
}

impl Nats {
    pub(crate) fn start(dir: &Path) -> Nats {
        Nats::start_with(dir, free_port(), "")
    }

    /// With more in its configuration.
    pub(crate) fn start_with(dir: &Path, port: u16, settings: &str) -> Nats {
        let (config, store) = (dir.join("nats.conf"), dir.join("nats"));
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {store:?}, max_mem: 64MB, max_file: 512MB }}\n{settings}\n"
        );
        Nats::start_as(&config, port, &text)
    }

    /// With this configuration.
    pub(crate) fn start_as(config: &Path, port: u16, text: &str) -> Nats {
        Nats::start_at("127.0.0.1", None, config, port, text)
    }

    /// At this address, in this network namespace.
    pub(crate) fn start_at(
        host: &str,
        space: Option<&str>,
        config: &Path,
        port: u16,
        text: &str,
    ) -> Nats {
        std::fs::write(config, text).unwrap();
        let (host, space) = (host.to_owned(), space.map(str::to_owned));
        let child = Nats::spawn(&host, space.as_deref(), config, port);
        Nats {
            child,
            host,
            port,
            config: config.to_owned(),
            space,
        }
    }

    fn spawn(host: &str, space: Option<&str>, config: &Path, port: u16) -> Child {
        // Debian has it where only root looks.
        let path = std::env::var("PATH").unwrap() + ":/usr/sbin";
        let log = std::fs::File::create(config.with_extension("log")).unwrap();
        let mut command = match space {
            Some(space) => in_space(space, "nats-server"),
            None => Command::new("nats-server"),
        };
        let child = command
            .env("PATH", path)
            .arg("-c")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server is needed (apt-get install nats-server)");
        wait_until("nats-server listens", || {
            TcpStream::connect((host, port)).is_ok()
        });
        child
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}:{}", self.host, self.port)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGSTOP: its sockets take bytes, and nobody reads them. SIGCONT ends it.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Again, with what it has on its disk.
    pub(crate) fn restart(&mut self) {
        self.child = Nats::spawn(&self.host, self.space.as_deref(), &self.config, self.port);
    }
}

/// A program in a network namespace; it has the process of this command.
pub(crate) fn in_space(space: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", space, program]);
    command
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
