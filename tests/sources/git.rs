//! `git = "https://…"` by git's own server program, and content that Git LFS keeps elsewhere.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use slmops::source::Fetch;

use crate::server::{Answer, Asked, Server};
use crate::space::{Space, files, noise, sha256};

pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]).args(arguments);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    let output = command.output().expect("this test needs `git`");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_string()
}

pub fn commit(folder: &Path, files: &[(&str, &[u8])]) -> String {
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    git(folder, &["add", "-A"]);
    git(folder, &["commit", "-q", "-m", "m"]);
    git(folder, &["rev-parse", "HEAD"])
}

pub fn repository(space: &Space) -> PathBuf {
    let folder = space.path().join("origin/data.git");
    fs::create_dir_all(&folder).unwrap();
    git(&folder, &["init", "-q", "-b", "main"]);
    folder
}

/// What git itself answers.
pub fn backend(root: &Path, asked: &Asked) -> Answer {
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query);
    command.env("REQUEST_METHOD", &asked.method).env("CONTENT_TYPE", asked.header("content-type").unwrap_or_default());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("this test needs `git`");
    let mut stdin = child.stdin.take().unwrap();
    let body = asked.body.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&body).is_ok());
    let output = child.wait_with_output().unwrap().stdout;
    writer.join().unwrap();
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(output.len());
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let mut answer = Answer::of(200, output.get(end + 4..).unwrap_or_default());
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        match name {
            "Status" => answer.status = value[..3].parse().unwrap(),
            _ => answer = answer.header(name, value),
        }
    }
    answer
}

fn served(space: &Space) -> Server {
    let root = space.path().join("origin");
    Server::start(move |asked| backend(&root, asked))
}

fn small(space: &Space) -> usize {
    slmops::base::files::walk(&space.path().join("cache/sources/git"))
        .unwrap()
        .iter()
        .filter(|name| name.to_string_lossy().ends_with(".pack"))
        .count()
}

#[test]
fn branches_tags_and_commits_come_over_http() {
    let space = Space::new("{ path = \"slmops.toml\" }");
    let folder = repository(&space);
    let first = commit(&folder, &[("d/x.jsonl", b"one"), ("y", b"two")]);
    git(&folder, &["tag", "-a", "v1", "-m", "m"]);
    let second = commit(&folder, &[("d/x.jsonl", b"three")]);
    git(&folder, &["branch", "side"]);
    let third = commit(&folder, &[("z", b"four")]);
    let server = served(&space);
    let url = format!("{}/data.git", server.url);
    for (want, rev) in [
        ("description = \"head\"", &third),
        ("branch = \"side\"", &second),
        ("tag = \"v1\"", &first),
        (&format!("rev = \"{second}\""), &second),
        (&format!("rev = \"{}\"", &first[..10]), &first),
    ] {
        space.manifest(&format!("{{ git = \"{url}\", {want} }}"));
        assert_eq!(space.lock().unwrap().sources["a"].rev, *rev, "{want}");
        let expected = if *rev == first { "one" } else { "three" };
        assert_eq!(fs::read_to_string(space.fetched().join("d/x.jsonl")).unwrap(), expected, "{want}");
        server.asked();
        space.fetched();
        assert!(server.asked().is_empty());
    }
    // A single file keeps its name, which tells what it is.
    space.manifest(&format!("{{ git = \"{url}\", path = \"d/x.jsonl\" }}"));
    space.lock().unwrap();
    assert!(space.fetched().ends_with("x.jsonl"));
    for (want, why) in
        [("branch = \"none\"", "no branch none"), ("rev = \"0123456789\"", "no rev 0123456789"), ("path = \"q\"", "has no `q`")]
    {
        space.manifest(&format!("{{ git = \"{url}\", {want} }}"));
        assert!(space.lock_fails().message.contains(why), "{want}");
    }
    space.manifest(&format!("{{ git = \"{}/none.git\" }}", server.url));
    let error = space.lock_fails();
    assert!(error.message.contains("shows no repository there") && error.helps[0].contains(".netrc"), "{error:?}");
}

#[test]
fn a_store_of_an_older_version_takes_in_what_is_fetched() {
    let space = Space::new("{ path = \"slmops.toml\" }");
    let folder = repository(&space);
    commit(&folder, &[("x", b"one")]);
    let server = served(&space);
    space.manifest(&format!("{{ git = \"{}/data.git\" }}", server.url));
    space.write("cache/sources", "slmops sources 1\nwhat was remembered of local files\n");
    space.lock().unwrap();
    assert_eq!(fs::read_to_string(space.fetched().join("x")).unwrap(), "one");
}

/// A killed fetch leaves git's own lock files; they must not refuse every later one.
#[test]
fn locks_of_a_killed_fetch_do_not_stay() {
    let space = Space::new("{ path = \"slmops.toml\" }");
    let folder = repository(&space);
    commit(&folder, &[("x", b"one")]);
    space.manifest(&format!("{{ git = \"{}\", branch = \"main\" }}", folder.display()));
    space.lock().unwrap();
    let mirrors = space.path().join("cache/sources/git");
    let mirror = mirrors.join(&slmops::base::files::names(&mirrors).unwrap()[0]);
    let locks = ["HEAD.lock", "FETCH_HEAD.lock", "packed-refs.lock", "refs/heads/main.lock", "refs/slmops/head.lock"];
    for name in locks {
        fs::write(mirror.join(name), "").unwrap();
    }
    fs::create_dir_all(space.path().join("cache/sources/blobs")).unwrap();
    fs::write(space.path().join("cache/sources/blobs/.blob-cut"), "o").unwrap();
    let second = commit(&folder, &[("x", b"two")]);
    assert_eq!(space.lock().unwrap().sources["a"].rev, second);
    assert_eq!(fs::read_to_string(space.fetched().join("x")).unwrap(), "two");
    assert!(locks.iter().all(|name| !mirror.join(name).exists()));
    assert!(!space.path().join("cache/sources/blobs/.blob-cut").exists());
}

#[test]
fn one_commit_comes_without_its_history() {
    let space = Space::new("{ path = \"slmops.toml\" }");
    let folder = repository(&space);
    let first = commit(&folder, &[("x", &noise(30_000))]);
    let second = commit(&folder, &[("x", b"small")]);
    let server = served(&space);
    let url = format!("{}/data.git", server.url);
    space.manifest(&format!("{{ git = \"{url}\" }}"));
    space.lock().unwrap();
    assert_eq!(small(&space), 1);
    let clones = space.path().join("cache/sources/git");
    let clone = clones.join(&slmops::base::files::names(&clones).unwrap()[0]);
    let has = |rev: &str| git2::Repository::open_bare(&clone).unwrap().find_commit(git2::Oid::from_str(rev).unwrap()).is_ok();
    assert!(has(&second) && !has(&first));
    // An older pin is had alone from a server that gives any commit, and with everything from one that does not.
    git(&folder, &["config", "uploadpack.allowReachableSHA1InWant", "true"]);
    space.manifest(&format!("{{ git = \"{url}\", rev = \"{first}\" }}"));
    space.lock().unwrap();
    assert!(has(&first));
    space.forget();
    git(&folder, &["config", "uploadpack.allowReachableSHA1InWant", "false"]);
    assert_eq!(fs::read(space.fetched().join("x")).unwrap(), noise(30_000));
    assert!(has(&second));
}

pub fn pointer(bytes: &[u8]) -> Vec<u8> {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n", sha256(bytes), bytes.len()).into_bytes()
}

#[test]
fn large_files_come_from_where_git_lfs_keeps_them() {
    let space = Space::new("{ path = \"slmops.toml\" }");
    let folder = repository(&space);
    let large = noise(20_000);
    commit(&folder, &[("d/w.bin", &pointer(&large)), ("x", b"small")]);
    // On this machine: from the repository's own folder.
    space.manifest("{ git = \"origin/data.git\" }");
    let error = space.lock_fails();
    assert!(
        error.message.contains("d/w.bin") && error.message.contains("only as a pointer") && error.helps[0].contains("git lfs"),
        "{error:?}"
    );
    let kept = folder.join(".git/lfs/objects").join(&sha256(&large)[..2]).join(&sha256(&large)[2..4]);
    fs::create_dir_all(&kept).unwrap();
    fs::write(kept.join(sha256(&large)), "damaged").unwrap();
    assert!(space.lock_fails().message.contains("damaged"));
    fs::write(kept.join(sha256(&large)), &large).unwrap();
    space.lock().unwrap();
    let expected = vec![("d/w.bin".to_string(), large.clone()), ("x".to_string(), b"small".to_vec())];
    assert_eq!(files(&space.fetched()), expected);

    // Over HTTP: asked for, and fetched from where the server says, with what it says.
    let bytes = large.clone();
    let store = Server::start(move |asked| match asked.header("authorization") {
        Some("RemoteAuth x") => Answer::ranged(asked, &bytes),
        _ => Answer::of(403, ""),
    });
    let (root, href) = (space.path().join("origin"), format!("{}/w", store.url));
    let server = Server::start(move |asked| {
        if !asked.path.ends_with("/data.git/info/lfs/objects/batch") {
            return backend(&root, asked);
        }
        let request: serde_json::Value = serde_json::from_slice(&asked.body).unwrap();
        assert_eq!((&request["operation"], &request["transfers"][0]), (&"download".into(), &"basic".into()));
        let object = &request["objects"][0];
        let answer = serde_json::json!({"transfer": "basic", "objects": [{"oid": object["oid"], "size": object["size"],
            "actions": {"download": {"href": href, "header": {"Authorization": "RemoteAuth x"}}}}]});
        Answer::of(200, answer.to_string()).header("Content-Type", "application/vnd.git-lfs+json")
    });
    space.forget();
    space.manifest(&format!("{{ git = \"{}/data.git\" }}", server.url));
    space.lock().unwrap();
    assert_eq!(files(&space.fetched()), expected);
    let batch = server.asked().into_iter().find(|asked| asked.path.ends_with("batch")).unwrap();
    assert_eq!((batch.method.as_str(), batch.header("accept")), ("POST", Some("application/vnd.git-lfs+json")));
    space.forget();
    assert_eq!(files(&space.plan(Fetch::Pinned).unwrap()), expected);
}

#[test]
fn a_pointer_is_never_taken_for_data() {
    let space = Space::new("{ path = \"slmops.toml\" }");
    let folder = repository(&space);
    commit(&folder, &[("w.bin", &pointer(b"large"))]);
    let root = space.path().join("origin");
    for (answer, why) in [
        (Answer::of(404, ""), "answers 404"),
        (Answer::of(200, "<html>"), "cannot be read"),
        (Answer::of(200, "{\"objects\": []}"), "says nothing of it"),
        (
            Answer::of(
                200,
                format!("{{\"objects\": [{{\"oid\": \"{}\", \"error\": {{\"code\": 404, \"message\": \"gone\"}}}}]}}", sha256(b"large")),
            ),
            "404 gone",
        ),
    ] {
        let root = root.clone();
        let server = Server::start(move |asked| if asked.path.contains("/info/lfs/") { answer.clone() } else { backend(&root, asked) });
        space.manifest(&format!("{{ git = \"{}/data.git\" }}", server.url));
        let error = space.lock_fails();
        assert!(error.message.contains(why) && error.message.contains("`w.bin` is kept by Git LFS"), "{error:?}");
    }
}
