//! A server that plays the model hub: the answers of its interface, redirects to another host, ranges, and faults on request.
//!
//! Whether these answers are the hub's is judged by its own client (`client.rs` beside this file), which downloads from here.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What a file holds.
#[derive(Clone)]
pub(crate) enum Contents {
    Bytes(Arc<Vec<u8>>),
    /// A header, and behind it so many bytes of bfloat16 numbers that follow from their place: a checkpoint of any size.
    Numbers(Arc<Vec<u8>>, u64),
}

impl Contents {
    pub(crate) fn size(&self) -> u64 {
        match self {
            Contents::Bytes(bytes) => bytes.len() as u64,
            Contents::Numbers(header, behind) => header.len() as u64 + behind,
        }
    }

    fn read(&self, range: Range<u64>) -> Vec<u8> {
        let slice = |bytes: &[u8], range: &Range<u64>| {
            let end = range.end.min(bytes.len() as u64);
            let start = range.start.min(end);
            bytes[start as usize..end as usize].to_vec()
        };
        match self {
            Contents::Bytes(bytes) => slice(bytes, &range),
            Contents::Numbers(header, _) => {
                let mut all = slice(header, &range);
                let behind = header.len() as u64;
                let first = range.start.max(behind) - behind;
                let last = range.end.max(behind) - behind;
                numbers(first..last, &mut all);
                all
            }
        }
    }
}

/// Bytes of bfloat16 numbers between 0.008 and 0.03, of either sign, which come again after a prime number of them: so nothing that is
/// taken from another row or tensor is the same by chance.
fn numbers(range: Range<u64>, out: &mut Vec<u8>) {
    const COUNT: u64 = 1_048_573;
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    let number = |at: u64| {
        let mut x = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x ^= x >> 29;
        x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((x >> 40) as u16 & 0x80ff) | 0x3c00
    };
    let table = TABLE.get_or_init(|| (0..COUNT).map(number).flat_map(u16::to_le_bytes).collect());
    let mut at = range.start;
    while at < range.end {
        let rest = &table[(at % (2 * COUNT)) as usize..];
        let n = (range.end - at).min(rest.len() as u64);
        out.extend_from_slice(&rest[..n as usize]);
        at += n;
    }
}

#[derive(Clone)]
struct Blob {
    contents: Contents,
    /// SHA-256 of large files, git's name of small ones.
    etag: String,
    is_large: bool,
}

/// A repository at one commit.
#[derive(Clone)]
pub(crate) struct Repo {
    pub(crate) commit: String,
    pub(crate) gated: bool,
    pub(crate) licence: &'static str,
    files: BTreeMap<String, Blob>,
}

impl Repo {
    pub(crate) fn new(commit: &str) -> Repo {
        Repo {
            commit: commit.repeat(40 / commit.len()),
            gated: false,
            licence: "apache-2.0",
            files: BTreeMap::new(),
        }
    }

    /// The files of a directory, as they are.
    pub(crate) fn of(dir: &Path, commit: &str) -> Repo {
        let mut repo = Repo::new(commit);
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_file() && name != "README.md" {
                repo.add(&name, std::fs::read(path).unwrap());
            }
        }
        repo
    }

    pub(crate) fn add(&mut self, name: &str, bytes: Vec<u8>) {
        let is_large = [".safetensors", ".gguf", "tokenizer.json"]
            .iter()
            .any(|end| name.ends_with(end));
        let etag = match is_large {
            true => hex::encode(Sha256::digest(&bytes)),
            false => {
                let blob = Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
                hex::encode(blob.chain_update(&bytes).finalize())
            }
        };
        let contents = Contents::Bytes(Arc::new(bytes));
        let blob = Blob {
            contents,
            etag,
            is_large,
        };
        self.files.insert(name.to_owned(), blob);
    }

    /// A large file whose hash nobody computes.
    pub(crate) fn add_numbers(&mut self, name: &str, header: Vec<u8>, behind: u64) {
        let etag = hex::encode(Sha256::digest(&header));
        let blob = Blob {
            contents: Contents::Numbers(Arc::new(header), behind),
            etag,
            is_large: true,
        };
        self.files.insert(name.to_owned(), blob);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.files.remove(name).unwrap();
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        let contents = &self.files[name].contents;
        contents.read(0..contents.size())
    }

    /// Says that a file has a hash that it has not.
    pub(crate) fn lie(&mut self, name: &str) {
        let etag = &mut self.files.get_mut(name).unwrap().etag;
        let other = if etag.starts_with('0') { "1" } else { "0" };
        etag.replace_range(0..1, other);
    }
}

/// What goes wrong with a request.
#[derive(Clone)]
pub(crate) enum Fault {
    /// A status, with headers.
    Status(u16, Vec<(&'static str, String)>),
    /// The connection ends after so many bytes of the body.
    CutOff(u64),
    /// The whole file, whatever was asked for.
    Whole,
    /// Another etag.
    Changed,
    /// A redirect.
    To(String),
    /// A page, as of a network that wants a login.
    Page,
    /// No word of a commit.
    NoCommit,
    /// Such an answer, instead of the list of files.
    Body(Vec<u8>),
    /// Nothing, until there is such a file.
    Until(PathBuf),
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// As the client calls it: `127.0.0.1:1` is the hub, `localhost:2` is where it redirects to.
    pub(crate) host: String,
    pub(crate) target: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
}

struct Plan {
    /// Part of the request's path.
    path: &'static str,
    /// Requests that go well before.
    after: usize,
    times: usize,
    fault: Fault,
}

#[derive(Default)]
struct State {
    repos: Mutex<BTreeMap<String, Repo>>,
    plans: Mutex<Vec<Plan>>,
    asked: Mutex<Vec<Asked>>,
    sent_bytes: AtomicU64,
    /// Where large files are.
    store: Mutex<String>,
    token: Mutex<Option<String>>,
}

/// The hub, and beside it the store that it redirects to.
pub(crate) struct Hub {
    state: Arc<State>,
    pub(crate) endpoint: String,
}

impl Hub {
    pub(crate) fn start() -> Hub {
        let state = Arc::new(State::default());
        let hub = serve("127.0.0.1:0", Arc::clone(&state));
        let store = serve("127.0.0.1:0", Arc::clone(&state));
        *state.store.lock().unwrap() = format!("http://localhost:{store}");
        Hub {
            state,
            endpoint: format!("http://127.0.0.1:{hub}"),
        }
    }

    pub(crate) fn put(&self, id: &str, repo: Repo) {
        self.state.repos.lock().unwrap().insert(id.to_owned(), repo);
    }

    /// Gated repositories are given to whoever has this token.
    pub(crate) fn accept(&self, token: &str) {
        *self.state.token.lock().unwrap() = Some(token.to_owned());
    }

    /// Requests whose path has `path` in it go wrong, `times` times, after `after` that went well.
    pub(crate) fn fail(&self, path: &'static str, after: usize, times: usize, fault: Fault) {
        self.state.plans.lock().unwrap().push(Plan {
            path,
            after,
            times,
            fault,
        });
    }

    /// What was asked so far; it begins anew.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state.asked.lock().unwrap())
    }

    /// Bytes of bodies that were sent so far; it begins anew.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.state.sent_bytes.swap(0, Ordering::SeqCst)
    }
}

fn serve(address: &str, state: Arc<State>) -> u16 {
    let listener = TcpListener::bind(address).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // What waits here when a client is killed never goes out, and is counted as sent nevertheless. On this machine alone the
            // system lets 4 MB wait.
            rustix::net::sockopt::set_socket_send_buffer_size(&stream, 128 << 10).unwrap();
            let state = Arc::clone(&state);
            // A client that goes away is the client's business.
            std::thread::spawn(move || answer(&stream, &state).ok());
        }
    });
    port
}

struct Request {
    head: bool,
    asked: Asked,
    path: String,
}

fn read_request(stream: &TcpStream) -> std::io::Result<Request> {
    let mut lines = BufReader::new(stream.take(64 << 10)).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut words = first.split(' ');
    let head = words.next() == Some("HEAD");
    let target = words.next().unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let path = target.split('?').next().unwrap_or_default();
    let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    Ok(Request {
        head,
        path: path.into_owned(),
        asked: Asked {
            host: headers.get("host").cloned().unwrap_or_default(),
            range: headers.get("range").cloned(),
            authorization: headers.get("authorization").cloned(),
            target,
        },
    })
}

/// Status, headers and body of an answer.
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
}

enum Body {
    Bytes(Vec<u8>),
    Part(Contents, Range<u64>),
}

impl Reply {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply {
            status,
            headers: vec![("X-Request-Id".to_owned(), "1".to_owned())],
            body: Body::Bytes(body.into()),
        }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn refused(status: u16, code: &str, message: &str) -> Reply {
        Reply::new(status, format!("{{\"error\": {message:?}}}"))
            .with("X-Error-Code", code)
            .with("X-Error-Message", message)
    }
}

fn answer(mut stream: &TcpStream, state: &State) -> std::io::Result<()> {
    let request = read_request(stream)?;
    state.asked.lock().unwrap().push(request.asked.clone());
    let fault = fault(state, &request.path);
    if let Some(Fault::Until(path)) = &fault {
        while !path.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let mut reply = reply(state, &request, fault.as_ref());
    let mut most = u64::MAX;
    match fault {
        Some(Fault::CutOff(bytes)) if matches!(reply.status, 200 | 206) => most = bytes,
        Some(Fault::NoCommit) => reply.headers.retain(|(name, _)| name != "X-Repo-Commit"),
        _ => {}
    }
    let length = match &reply.body {
        Body::Bytes(bytes) => bytes.len() as u64,
        Body::Part(_, range) => range.end - range.start,
    };
    let mut head = format!("HTTP/1.1 {} Said\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !reply
        .headers
        .iter()
        .any(|(name, _)| name == "Content-Length")
    {
        head += &format!("Content-Length: {length}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if request.head {
        return Ok(());
    }
    let mut send = |bytes: &[u8]| {
        let n = most.min(bytes.len() as u64);
        most -= n;
        stream.write_all(&bytes[..n as usize])?;
        state.sent_bytes.fetch_add(n, Ordering::SeqCst);
        Ok::<bool, std::io::Error>(most > 0)
    };
    match reply.body {
        Body::Bytes(bytes) => send(&bytes).map(drop),
        Body::Part(contents, range) => {
            for start in range.clone().step_by(64 << 10) {
                let end = range.end.min(start + (64 << 10));
                if !send(&contents.read(start..end))? {
                    break;
                }
            }
            Ok(())
        }
    }
}

fn fault(state: &State, path: &str) -> Option<Fault> {
    let mut plans = state.plans.lock().unwrap();
    for plan in plans.iter_mut().filter(|plan| path.contains(plan.path)) {
        if plan.after > 0 {
            plan.after -= 1;
        } else if plan.times > 0 {
            plan.times -= 1;
            return Some(plan.fault.clone());
        }
    }
    None
}

fn reply(state: &State, request: &Request, fault: Option<&Fault>) -> Reply {
    match fault {
        Some(Fault::Status(status, headers)) => {
            let mut reply = Reply::new(*status, "no");
            for (name, value) in headers {
                reply = reply.with(name, value.clone());
            }
            return reply;
        }
        Some(Fault::To(location)) => return Reply::new(302, "").with("Location", location),
        Some(Fault::Page) => {
            let mut page = Reply::new(200, "<!doctype html><title>Log in</title>");
            page.headers.clear();
            return page.with("Content-Type", "text/html");
        }
        Some(Fault::Body(bytes)) => return Reply::new(200, bytes.clone()),
        _ => {}
    }
    let path = request.path.trim_start_matches('/');
    let repos = state.repos.lock().unwrap();
    if let Some(etag) = path.strip_prefix("blob/") {
        let blobs = repos.values().flat_map(|repo| repo.files.values());
        let found = { blobs }.find(|blob| blob.etag == etag);
        return match found {
            // As S3 does with what it has not signed.
            Some(_) if request.asked.authorization.is_some() => Reply::new(400, "two signatures"),
            Some(blob) => part(blob, request, fault),
            None => Reply::new(403, "<Error>AccessDenied</Error>"),
        };
    }
    let (id, rest) = match path.strip_prefix("api/models/") {
        Some(rest) => split_id(rest),
        None => split_id(
            path.strip_prefix("api/resolve-cache/models/")
                .unwrap_or(path),
        ),
    };
    let Some(repo) = repos.get(id) else {
        return Reply::refused(401, "RepoNotFound", "Invalid username or password.");
    };
    let wanted = state.token.lock().unwrap().clone();
    if let (true, Some(wanted), false) = (repo.gated, wanted, path.starts_with("api/models/")) {
        let bearer = format!("Bearer {wanted}");
        match &request.asked.authorization {
            None => return Reply::refused(401, "GatedRepo", "Access to model is restricted."),
            Some(found) if *found != bearer => {
                return Reply::refused(403, "GatedRepo", "You are not in the authorized list.");
            }
            Some(_) => {}
        }
    }
    if path.starts_with("api/resolve-cache/") {
        let name = rest.split_once('/').map_or("", |(_, name)| name);
        return match repo.files.get(name) {
            Some(blob) => part(blob, request, fault)
                .with("X-Repo-Commit", &repo.commit)
                .with("ETag", etag(blob, fault)),
            None => Reply::refused(404, "EntryNotFound", "Entry not found"),
        };
    }
    if path.starts_with("api/models/") {
        let revision = rest.strip_prefix("revision/").unwrap_or("main");
        return match revision == "main" || revision == repo.commit {
            true => list(id, repo),
            false => Reply::refused(404, "RevisionNotFound", "Invalid rev id"),
        };
    }
    let Some((revision, name)) = rest
        .strip_prefix("resolve/")
        .and_then(|rest| rest.split_once('/'))
    else {
        return Reply::new(404, "no such page");
    };
    if revision != "main" && revision != repo.commit {
        return Reply::refused(404, "RevisionNotFound", "Invalid rev id");
    }
    let Some(blob) = repo.files.get(name) else {
        return Reply::refused(404, "EntryNotFound", "Entry not found");
    };
    let size = blob.contents.size();
    let reply = match blob.is_large {
        true => {
            let store = state.store.lock().unwrap();
            let location = format!("{store}/blob/{}?X-Signature=s3cret", blob.etag);
            Reply::new(302, "").with("Location", location)
        }
        false => {
            let location = format!("/api/resolve-cache/models/{id}/{}/{name}", repo.commit);
            Reply::new(307, "").with("Location", location)
        }
    };
    reply
        .with("X-Repo-Commit", &repo.commit)
        .with("X-Linked-Etag", etag(blob, fault))
        .with("X-Linked-Size", size.to_string())
        .with("ETag", etag(blob, fault))
}

fn etag(blob: &Blob, fault: Option<&Fault>) -> String {
    match fault {
        Some(Fault::Changed) => format!("\"{}\"", "0".repeat(64)),
        _ => format!("\"{}\"", blob.etag),
    }
}

fn split_id(path: &str) -> (&str, &str) {
    let slashes: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
    match slashes.get(1) {
        Some(&at) => (&path[..at], &path[at + 1..]),
        None => (path, ""),
    }
}

fn list(id: &str, repo: &Repo) -> Reply {
    let siblings: Vec<_> = repo
        .files
        .iter()
        .map(|(name, blob)| {
            let size = blob.contents.size();
            match blob.is_large {
                true => json!({"rfilename": name, "size": size, "blobId": "0".repeat(40),
                    "lfs": {"sha256": blob.etag, "size": size, "pointerSize": 130}}),
                false => json!({"rfilename": name, "size": size, "blobId": blob.etag}),
            }
        })
        .collect();
    let gated = if repo.gated {
        json!("auto")
    } else {
        json!(false)
    };
    let body = json!({
        "_id": "1", "id": id, "modelId": id, "sha": repo.commit, "private": false, "gated": gated, "disabled": false,
        "downloads": 0, "likes": 0, "tags": [], "cardData": {"license": repo.licence}, "siblings": siblings,
    });
    Reply::new(200, body.to_string()).with("Content-Type", "application/json")
}

/// The bytes that a range asks for.
fn part(blob: &Blob, request: &Request, fault: Option<&Fault>) -> Reply {
    let size = blob.contents.size();
    let range = request.asked.range.as_deref();
    let range = range.and_then(|range| range.strip_prefix("bytes="));
    let range = range.filter(|_| !matches!(fault, Some(Fault::Whole)));
    let reply = |status, range: Range<u64>| Reply {
        body: Body::Part(blob.contents.clone(), range),
        ..Reply::new(status, "")
    };
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
        return reply(200, 0..size).with("Accept-Ranges", "bytes");
    };
    let first: u64 = first.parse().unwrap();
    let end = last.parse::<u64>().map_or(size, |last| size.min(last + 1));
    if first >= size {
        return Reply::new(416, "").with("Content-Range", format!("bytes */{size}"));
    }
    reply(206, first..end).with("Content-Range", format!("bytes {first}-{}/{size}", end - 1))
}
