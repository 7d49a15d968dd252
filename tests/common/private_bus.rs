//! A dbus-daemon of one's own, and callers on it.

#![allow(
    dead_code,
    reason = "every test binary that has this module uses a part of it"
)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gemmad::publish::dbus::DbusOptions;
use serde_json::{Value, json};

/// Long enough for a loaded machine; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Users of every Debian, in the part of the group gemmad's members and of somebody else.
pub(crate) const MEMBER: &[&str] = &["--reuid=daemon", "--regid=daemon", "--clear-groups"];
pub(crate) const OTHER_MEMBER: &[&str] = &["--reuid=bin", "--regid=bin", "--groups=daemon"];
pub(crate) const OUTSIDER: &[&str] = &["--reuid=nobody", "--regid=nogroup", "--clear-groups"];
pub(crate) const MEMBERS_GROUP: &str = "daemon";

/// Waits until `found` finds something.
pub(crate) fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A bus that ends with the test.
pub(crate) struct PrivateBus {
    daemon: Child,
    directory: tempfile::TempDir,
}

impl Drop for PrivateBus {
    fn drop(&mut self) {
        self.signal("CONT");
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }
}

impl PrivateBus {
    /// Everybody may do everything.
    pub(crate) fn open() -> PrivateBus {
        PrivateBus::start(
            r#"<allow user="*"/> <allow own="*"/> <allow send_destination="*" eavesdrop="true"/> <allow eavesdrop="true"/>"#,
            "",
        )
    }

    /// The rules that a system bus begins with (dbus's own system.conf), then `policies`.
    pub(crate) fn like_the_system_bus(policies: &str) -> PrivateBus {
        PrivateBus::start(
            r#"<allow user="*"/> <deny own="*"/> <deny send_type="method_call"/> <allow send_type="signal"/>
               <allow send_requested_reply="true" send_type="method_return"/> <allow send_requested_reply="true" send_type="error"/>
               <allow receive_type="method_call"/> <allow receive_type="method_return"/> <allow receive_type="error"/>
               <allow receive_type="signal"/> <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
               <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Introspectable"/>
               <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Properties"/>"#,
            policies,
        )
    }

    fn start(default: &str, policies: &str) -> PrivateBus {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let bus = directory.path().join("bus");
        let config = directory.path().join("bus.conf");
        let text = format!(
            r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
               <busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>
               <policy context="default">{default}</policy>
               {policies}
               <policy user="root"><allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Monitoring"/></policy>
               <limit name="max_replies_per_connection">100000</limit></busconfig>"#,
            bus.display()
        );
        std::fs::write(&config, text).unwrap();
        let daemon = PrivateBus::spawn(directory.path());
        PrivateBus { daemon, directory }
    }

    fn spawn(directory: &Path) -> Child {
        let daemon = Command::new("dbus-daemon")
            .arg(format!(
                "--config-file={}",
                directory.join("bus.conf").display()
            ))
            .args(["--nofork", "--nopidfile", "--nosyslog"])
            .stderr(Stdio::null()) // every refusal that a test wants is told there
            .spawn()
            .unwrap();
        wait_for("the bus", || {
            UnixStream::connect(directory.join("bus")).ok()
        });
        daemon
    }

    /// Another bus at the same address; whoever was connected is not any more.
    pub(crate) fn restart(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        std::fs::remove_file(self.directory.path().join("bus")).ok();
        self.daemon = PrivateBus::spawn(self.directory.path());
    }

    pub(crate) fn address(&self) -> String {
        format!("unix:path={}", self.directory.path().join("bus").display())
    }

    /// Sends the bus itself a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.daemon.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.unwrap().success());
    }

    pub(crate) fn config(&self) -> DbusOptions {
        DbusOptions {
            bus: self.address(),
            ..DbusOptions::default()
        }
    }

    /// A program as another user (options of setpriv); without any, as the test's own.
    pub(crate) fn command(&self, user: &[&str], program: &str) -> Command {
        if user.is_empty() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(user).arg(program);
        command
    }

    /// What `busctl` prints, or its complaint.
    pub(crate) fn busctl(&self, user: &[&str], arguments: &[&str]) -> Result<String, String> {
        let mut command = self.command(user, "busctl");
        let output = command
            .arg(format!("--address={}", self.address()))
            .args(arguments)
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap())
        } else {
            Err(String::from_utf8(output.stderr).unwrap())
        }
    }

    /// A caller that stays.
    pub(crate) fn caller(&self, user: &[&str]) -> Caller {
        // A copy that other users may read, wherever the repository lies.
        let script = self.directory.path().join("client.py");
        std::fs::write(&script, include_str!("bus_client.py")).unwrap();
        // Debian's own Python has Debian's python3-dbus; another one first on the PATH has not.
        let mut command = self.command(user, "/usr/bin/python3");
        let command = command.arg(&script).arg(self.address()).current_dir("/");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut caller = Caller {
            child,
            stdin,
            stdout,
            name: String::new(),
        };
        caller.name = caller.answer()["ok"]
            .as_str()
            .expect("python3-dbus is installed")
            .to_owned();
        caller
    }

    /// What a member of the public hears of org.gemmad1.
    pub(crate) fn listener(&self, user: &[&str]) -> Lines {
        let mut command = self.command(user, "gdbus");
        let lines = Lines::of(command.args([
            "monitor",
            "--address",
            &self.address(),
            "--dest",
            "org.gemmad1",
        ]));
        wait_for("gdbus monitor", || {
            lines.text().contains("is owned by").then_some(())
        });
        lines
    }

    /// Everything that passes on the bus, one JSON object a line; for root, or on the open bus.
    pub(crate) fn monitor(&self) -> Lines {
        let mut command = Command::new("busctl");
        command
            .arg(format!("--address={}", self.address()))
            .args(["--json=short", "monitor"]);
        let lines = Lines::of(&mut command);
        wait_for("busctl monitor", || {
            // It hears nothing before it is ready, so the bus is made to say something.
            self.busctl(&[], &["list"]).unwrap();
            lines.text().contains("NameOwnerChanged").then_some(())
        });
        lines
    }
}

/// A connected caller.
pub(crate) struct Caller {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    pub(crate) name: String,
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Caller {
    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).expect("the caller answers; python3-dbus is installed")
    }

    pub(crate) fn send(&mut self, call: &Value) {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{call}").unwrap();
    }

    /// What was answered, or the error's name and message.
    pub(crate) fn call(
        &mut self,
        path: &str,
        interface: &str,
        method: &str,
        arguments: &Value,
    ) -> Result<Value, (String, String)> {
        self.send(
            &json!({"path": path, "interface": interface, "method": method, "args": arguments}),
        );
        let answer = self.answer();
        let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        match answer.get("ok") {
            Some(value) => Ok(value.clone()),
            None => Err((text("error"), text("message"))),
        }
    }

    /// A method of the manager.
    pub(crate) fn manager(
        &mut self,
        method: &str,
        arguments: &Value,
    ) -> Result<Value, (String, String)> {
        self.call("/org/gemmad1", "org.gemmad1.Manager", method, arguments)
    }

    /// Asks; the job's path.
    pub(crate) fn ask(&mut self, prompt: &str) -> Result<String, (String, String)> {
        let path = self.manager("Ask", &json!([prompt, {}]));
        path.map(|path| path.as_str().unwrap().to_owned())
    }

    pub(crate) fn property(
        &mut self,
        path: &str,
        interface: &str,
        name: &str,
    ) -> Result<Value, (String, String)> {
        self.call(
            path,
            "org.freedesktop.DBus.Properties",
            "Get",
            &json!([interface, name]),
        )
    }

    /// Many calls at once, without a look at the replies.
    pub(crate) fn burst(&mut self, count: usize, method: &str, arguments: &Value) {
        self.send(&json!({"burst": count, "path": "/org/gemmad1", "interface": "org.gemmad1.Manager", "method": method, "args": arguments}));
        assert_eq!(self.answer()["ok"], "sent");
    }
}

/// The lines that a program has written so far.
pub(crate) struct Lines {
    child: Child,
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
    }
}

impl Lines {
    fn of(command: &mut Command) -> Lines {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()
            .unwrap();
        let text = Arc::new(Mutex::new(String::new()));
        let (stdout, into) = (child.stdout.take().unwrap(), text.clone());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let mut text = into.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
            }
        });
        Lines {
            child,
            text,
            reader: Some(reader),
        }
    }

    pub(crate) fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    pub(crate) fn wait_for(&self, words: &str) {
        wait_for(&format!("{words} in what was heard"), || {
            self.text().contains(words).then_some(())
        });
    }
}

/// Whether the test may become other users.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
