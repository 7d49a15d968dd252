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
    pub(crate) port: u16,
    config: PathBuf,
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
        std::fs::write(config, text).unwrap();
        let child = Nats::spawn(config, port);
        Nats {
            child,
            port,
            config: config.to_owned(),
        }
    }

    fn spawn(config: &Path, port: u16) -> Child {
        // Debian has it where only root looks.
        let path = std::env::var("PATH").unwrap() + ":/usr/sbin";
        let log = std::fs::File::create(config.with_extension("log")).unwrap();
        let child = Command::new("nats-server")
            .env("PATH", path)
            .arg("-c")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server is needed (apt-get install nats-server)");
        wait_until("nats-server listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        child
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Again, with what it has on its disk.
    pub(crate) fn restart(&mut self) {
        self.child = Nats::spawn(&self.config, self.port);
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
