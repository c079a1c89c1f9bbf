//! `hf = "org/name"`: pinned, fetched, resumed, refused.

use std::fs;

use slmops::manifest::Lock;
use slmops::source::{Fetch, Token};

use crate::hub::{Hub, NAME, model};
use crate::server::Answer;
use crate::space::{Space, files, noise, sha256};

fn with_model() -> (Hub, Space, String) {
    let hub = Hub::of_models();
    let files = model();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(path, bytes)| (*path, bytes.as_slice())).collect();
    let commit = hub.commit("main", &files);
    let mut space = Space::new(&format!("{{ hf = \"{NAME}\" }}"));
    space.remote.hub = hub.server.url.clone();
    (hub, space, commit)
}

fn token(text: &str) -> Option<Token> {
    Some(Token::Given { variable: "HF_TOKEN", text: text.to_string() })
}

fn names(space: &Space) -> Vec<String> {
    files(&space.fetched()).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_model_is_pinned_fetched_and_then_nobody_is_asked() {
    let (hub, space, commit) = with_model();
    assert!(space.plan(Fetch::Pinned).unwrap_err().message.contains("not pinned yet"));
    assert!(hub.server.asked().is_empty());

    let lock = space.lock().unwrap();
    assert_eq!(lock.sources["a"].rev, commit);
    let text = fs::read_to_string(space.path().join("slmops.lock")).unwrap();
    assert!(text.contains("hf = \"org/tiny\"\nwant = \"revision main\"\n"), "{text}");
    let news = space.news();
    assert!(news.contains("pytorch_model.bin") && news.contains("Sized { files: 3, size_bytes: 50005 }"), "{news}");
    assert_eq!(hub.store.asked().len(), 1);
    hub.server.asked();

    // The files as the repository has them, without what is left out.
    let path = space.plan(Fetch::Never).unwrap();
    let expected: Vec<(String, Vec<u8>)> = model()
        .into_iter()
        .filter(|(path, _)| !path.starts_with(".git") && !path.ends_with(".bin"))
        .map(|(p, b)| (p.to_string(), b))
        .collect();
    assert_eq!(files(&path), expected);
    space.check().unwrap();
    space.fetched();
    assert!(hub.server.asked().is_empty() && hub.store.asked().is_empty());

    // A branch may have moved: pinning anew asks for its commit and for nothing else.
    space.lock().unwrap();
    assert_eq!(hub.server.asked().len(), 1);

    // A commit cannot.
    space.manifest(&format!("{{ hf = \"{NAME}\", revision = \"{commit}\" }}"));
    assert!(space.check().unwrap_err()[0].message.contains("has changed since it was pinned"));
    space.lock().unwrap();
    hub.server.asked();
    space.lock().unwrap();
    assert!(hub.server.asked().is_empty());
}

#[test]
fn a_pin_stays_when_the_branch_moves_and_lock_moves_it() {
    let (hub, space, first) = with_model();
    space.lock().unwrap();
    let second = hub.commit("main", &[("config.json", b"{\"a\": 1}"), ("model.safetensors", &noise(50_000))]);
    space.forget();
    assert!(space.plan(Fetch::Never).unwrap_err().message.contains("not on this machine"));
    assert_eq!(fs::read(space.fetched().join("config.json")).unwrap(), b"{}");
    assert_eq!(Lock::load(space.path()).unwrap().sources["a"].rev, first);
    hub.store.asked();

    assert_eq!(space.lock().unwrap().sources["a"].rev, second);
    assert_eq!(fs::read(space.fetched().join("config.json")).unwrap(), b"{\"a\": 1}");
    assert!(hub.store.asked().is_empty(), "the weights are the same and were here");

    // A touched file is noticed and fetched anew, wherever it is linked to.
    let path = space.fetched().join("model.safetensors");
    fs::write(&path, "forged").unwrap();
    assert!(space.plan(Fetch::Never).is_err());
    assert_eq!(fs::read(space.fetched().join("model.safetensors")).unwrap(), noise(50_000));

    // A lock that pins other content is noticed.
    let mut forged = Lock::load(space.path()).unwrap();
    forged.sources.get_mut("a").unwrap().rev = first;
    forged.store(space.path()).unwrap();
    assert!(space.plan(Fetch::Pinned).unwrap_err().message.contains("does not hold what slmops.lock pins"));
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let (hub, space, _) = with_model();
    let weights = noise(50_000);
    let store = format!("{}/{}?signed=yes", hub.store.url, sha256(&weights));
    // Twice cut on the way, within one run.
    let cut = |answer: Answer, after| answer.header("Content-Type", "x").cut(after);
    let first = cut(Answer::of(200, weights.clone()), 10_000);
    let second = cut(Answer::of(206, &weights[10_000..]).header("Content-Range", "bytes 10000-49999/50000"), 20_000);
    hub.fault("model.safetensors", [first, second]);
    space.lock().unwrap();
    let ranges: Vec<Option<String>> = hub
        .server
        .asked()
        .iter()
        .filter(|asked| asked.path.contains("model.safetensors"))
        .map(|a| a.header("range").map(str::to_string))
        .collect();
    assert_eq!(ranges, [None, Some("bytes=10000-".to_string()), Some("bytes=30000-".to_string())]);
    assert_eq!(hub.store.asked()[0].header("range"), Some("bytes=30000-"));
    assert!(store.starts_with("http"));

    // Cut for good: what has arrived is kept for the next run.
    space.forget();
    let dead = || Answer::of(206, &weights[10_000..]).header("Content-Range", "bytes 10000-49999/50000").cut(0);
    let first = Answer::of(200, weights.clone()).cut(10_000);
    hub.fault("model.safetensors", std::iter::once(first).chain((0..9).map(|_| dead())));
    let error = space.plan(Fetch::Pinned).unwrap_err();
    assert!(error.message.contains("broke 5 times") && error.is_environment, "{error:?}");
    assert!(error.helps[0].contains("goes on with what has arrived"));
    assert!(space.blobs().contains(&format!("sha256-{}.part", sha256(&weights))), "{:?}", space.blobs());
    hub.state.lock().unwrap().faults.clear();
    hub.store.asked();
    assert_eq!(fs::read(space.fetched().join("model.safetensors")).unwrap(), weights);
    assert_eq!(hub.store.asked()[0].header("range"), Some("bytes=10000-"));
    assert!(space.blobs().iter().all(|name| !name.ends_with(".part")));
}

#[test]
fn a_beginning_of_something_else_is_thrown_away() {
    let (hub, space, _) = with_model();
    space.lock().unwrap();
    space.forget();
    let blobs = space.path().join("cache/sources/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("sha256-{}.part", sha256(&noise(50_000)))), vec![7; 1234]).unwrap();
    assert_eq!(fs::read(space.fetched().join("model.safetensors")).unwrap(), noise(50_000));
    let ranges: Vec<bool> = hub.store.asked().iter().map(|asked| asked.header("range").is_some()).collect();
    assert_eq!(ranges, [false, true, false]);
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let (hub, mut space, _) = with_model();
    space.remote.hub_token = token("hf_secret");
    hub.state.lock().unwrap().gate = Some("hf_secret".into());
    space.lock().unwrap();
    let asked = hub.server.asked();
    assert!(asked.len() > 4 && asked.iter().all(|asked| asked.header("authorization") == Some("Bearer hf_secret")));
    let elsewhere = hub.store.asked();
    assert!(!elsewhere.is_empty() && elsewhere.iter().all(|asked| asked.header("authorization").is_none()), "{elsewhere:?}");
    assert!(!format!("{:?}", space.remote).contains("hf_secret"));
    let text = fs::read_to_string(space.path().join("slmops.lock")).unwrap();
    assert!(!text.contains("secret"));
}

#[test]
fn wrong_content_is_refused_and_leaves_nothing() {
    for (name, wrong, what) in [
        (
            "model.safetensors",
            {
                let mut bytes = noise(50_000);
                bytes[7] ^= 1;
                bytes
            },
            "SHA-256",
        ),
        ("config.json", b"[]".to_vec(), "git digest"),
        ("config.json", b"{} and more".to_vec(), "more than the 2 bytes"),
    ] {
        let (hub, space, _) = with_model();
        hub.state.lock().unwrap().forged.insert(name.into(), wrong.clone());
        let error = space.lock_fails();
        assert!(error.message.contains(what) && error.message.contains(name), "{error:?}");
        if what == "SHA-256" {
            assert!(error.message.contains(&sha256(&wrong)) && error.message.contains(&sha256(&noise(50_000))), "{error:?}");
        }
        let is_whole = |blob: &String| blob.contains(&sha256(&noise(50_000))) || blob.ends_with(".part");
        assert!(!space.path().join("slmops.lock").exists());
        assert!(what != "SHA-256" || !space.blobs().iter().any(is_whole), "{:?}", space.blobs());
        assert!(space.plan(Fetch::Pinned).is_err());
        hub.state.lock().unwrap().forged.clear();
        space.lock().unwrap();
    }
}

#[test]
fn what_the_hub_refuses_is_explained() {
    let (hub, mut space, _) = with_model();
    hub.state.lock().unwrap().gate = Some("right".into());
    let error = space.lock_fails();
    assert!(error.message.contains("gated") && error.helps[0].contains("HF_TOKEN") && error.helps[0].contains("/org/tiny"), "{error:?}");
    space.remote.hub_token = token("wrong");
    let error = space.lock_fails();
    assert!(error.message.contains("gated") && error.helps[0].contains("the account that the token belongs to"), "{error:?}");

    hub.fault("/revision/", [Answer::of(401, "{\"error\": \"Invalid credentials\"}")]);
    assert!(space.lock_fails().message.contains("does not take the token"));

    space.remote.hub_token = None;
    space.manifest("{ hf = \"org/nothing\" }");
    let error = space.lock_fails();
    assert!(error.message.contains("no model `org/nothing`") && error.helps[0].contains("repo_type = \"dataset\""), "{error:?}");
    space.manifest("{ hf = \"org/tiny\", revision = \"v9\" }");
    assert!(space.lock_fails().message.contains("no revision `v9`"));
    space.manifest("{ hf = \"org/tiny\", path = \"none.gguf\" }");
    assert!(space.lock_fails().message.contains("no file or folder `none.gguf`"));
    assert!(!space.lock_fails().is_environment);
}

#[test]
fn a_busy_server_is_asked_again() {
    let (hub, space, _) = with_model();
    hub.fault("/revision/", [Answer::of(429, "").header("Retry-After", "0"), Answer::of(503, ""), Answer::of(500, "")]);
    hub.fault("config.json", [Answer::of(429, "").header("RateLimit", "\"resolvers\";r=0;t=0")]);
    space.lock().unwrap();
    let revisions = hub.server.asked().iter().filter(|asked| asked.path.contains("/revision/")).count();
    assert_eq!(revisions, 4);
    assert!(space.news().contains("Waits { seconds: 0, why: \"127.0.0.1:"));

    hub.fault("/revision/", (0..5).map(|_| Answer::of(429, "slow down").header("Retry-After", "0")));
    let error = space.lock_fails();
    assert!(error.message.contains("answers 429: slow down") && error.is_environment, "{error:?}");
}

#[test]
fn a_hub_out_of_reach_is_told() {
    let (_hub, mut space, _) = with_model();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    space.remote.hub = format!("http://127.0.0.1:{port}");
    let error = space.lock_fails();
    assert!(error.message.contains(&format!("cannot reach 127.0.0.1:{port}")) && error.is_environment, "{error:?}");
    assert!(error.labels[0].place.span.start > 0 && error.helps[0].contains("HTTPS_PROXY"));
    space.remote.hub = format!("https://127.0.0.1:{port}");
    assert!(space.lock_fails().message.contains("cannot reach"));
    space.remote.hub = "ftp://x".into();
    assert!(space.lock_fails().message.contains("not a valid web address"));
    space.remote.certificates = Some(space.path().join("none.pem"));
    assert!(space.lock_fails().message.contains("cannot be used"));
}

#[test]
fn names_in_a_listing_stay_inside() {
    for bad in ["../outside", "/etc/passwd", "a/../../b", "a\\\\..\\\\b", ""] {
        let (hub, space, _) = with_model();
        let oid = "0a".repeat(20);
        hub.state.lock().unwrap().listed = vec![format!("{{\"type\": \"file\", \"oid\": \"{oid}\", \"size\": 1, \"path\": \"{bad}\"}}")];
        let error = space.lock_fails();
        assert!(
            error.message.contains("cannot be used")
                && error.message.contains(if bad.contains('\\') { "backslash" } else { "not a plain relative path" }),
            "{bad}: {error:?}"
        );
        assert!(space.blobs().is_empty());
    }
    let (hub, space, _) = with_model();
    hub.state.lock().unwrap().listed = vec!["{\"type\": \"file\"".into()];
    assert!(space.lock_fails().message.contains("cannot be read"));
}

#[test]
fn files_and_folders_and_patterns_choose() {
    let (hub, space, _) = with_model();
    space.manifest(&format!("{{ hf = \"{NAME}\", path = \"config.json\" }}"));
    space.lock().unwrap();
    let path = space.fetched();
    assert!(path.ends_with("config.json") && fs::read(&path).unwrap() == b"{}");
    space.manifest(&format!("{{ hf = \"{NAME}\", path = \"sub folder\" }}"));
    space.lock().unwrap();
    assert_eq!(names(&space), ["tok\u{e4}nizer.json"]);
    space.manifest(&format!("{{ hf = \"{NAME}\", include = [\"*.json\", \"*.bin\"], exclude = \"sub*\" }}"));
    space.lock().unwrap();
    assert_eq!(names(&space), ["config.json", "pytorch_model.bin"]);
    assert!(hub.store.asked().is_empty());
    space.manifest(&format!("{{ hf = \"{NAME}\", include = [\"*.txt\"] }}"));
    let error = space.lock_fails();
    assert!(error.message.contains("no file of the repository matches") && error.helps[0].contains("`config.json`"), "{error:?}");
}

#[test]
fn datasets_and_other_revisions_are_found() {
    let hub = Hub::start("/datasets");
    let commit = hub.commit("refs/pr/7", &[("data/train.jsonl", b"{\"text\":\"a\"}\n"), ("data/test.jsonl", b"{\"text\":\"b\"}\n")]);
    let mut space =
        Space::new(&format!("{{ hf = \"{NAME}\", repo_type = \"dataset\", revision = \"refs/pr/7\", path = \"data/train.jsonl\" }}"));
    space.remote.hub = format!("{}/", hub.server.url);
    assert_eq!(space.lock().unwrap().sources["a"].rev, commit);
    assert!(space.fetched().ends_with("train.jsonl"));
    assert!(
        fs::read_to_string(space.path().join("slmops.lock"))
            .unwrap()
            .contains("want = \"dataset, revision refs/pr/7\"\npath = \"data/train.jsonl\"\n")
    );
    assert!(hub.server.asked().iter().any(|asked| asked.path == "/api/datasets/org/tiny/revision/refs%2Fpr%2F7"));
}

#[test]
fn two_builds_at_once_fetch_a_file_once() {
    let (hub, space, _) = with_model();
    space.lock().unwrap();
    space.forget();
    hub.store.asked();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_eq!(fs::read(space.fetched().join("model.safetensors")).unwrap(), noise(50_000)));
        }
    });
    assert_eq!(hub.store.asked().len(), 1);
}
