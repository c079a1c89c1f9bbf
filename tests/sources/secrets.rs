//! Who is told which secret. Every case plants the same secrets, one for each host and kind, and names the servers that may have been told each; no
//! other server may have been told any, and no message, event or lock may hold one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use slmops::source::Token;

use crate::git::{backend, commit, git, pointer, repository};
use crate::server::Answer;
use crate::space::{Space, sha256};
use crate::world::{Told, World};

const HUB: &str = "https://hub.example:443";
const DATA: &str = "https://data.example:443";
const GIT: &str = "https://git.example:443";
const STORE: &str = "https://store.example:443";
const REGISTRY: &str = "https://registry.example:443";
const AUTH: &str = "https://auth.example:443";

const HF: &str = "hf_secret-hub";
/// In `~/.netrc`: `host` has the password `netrc-host`.
const NETRC: [&str; 9] = [
    "hub.example",
    "store.example",
    "evil.example",
    "data.example",
    "git.example",
    "registry.example",
    "auth.example",
    "example",
    "localhost",
];
/// In Docker's file: `host` has the password `docker-host`.
const DOCKER: [&str; 6] =
    ["registry.example", "auth.example", "evil.example", "https://index.docker.io/v1/", "registry.gitlab.com", "hub.example"];
/// What `auth` servers give out.
const TOKEN: &str = "token-of-registry";
const ACTION: &str = "action-of-lfs";
const PROXY: &str = "proxy-password";

fn secrets() -> Vec<String> {
    let mut all: Vec<String> = NETRC.iter().map(|host| format!("netrc-{host}")).collect();
    all.extend(DOCKER.iter().map(|host| format!("docker-{host}")));
    all.extend([HF, TOKEN, ACTION, PROXY, "netrc-default"].map(str::to_string));
    all
}

fn plant(space: &mut Space) {
    let entries: Vec<String> = NETRC.iter().map(|host| format!("machine {host} login me password netrc-{host}\n")).collect();
    space.write("netrc", &format!("{}default login me password netrc-default\n", entries.concat()));
    let auths: serde_json::Map<String, serde_json::Value> = DOCKER
        .iter()
        .map(|host| {
            use base64::Engine;
            let auth = base64::engine::general_purpose::STANDARD.encode(format!("me:docker-{host}"));
            (host.to_string(), serde_json::json!({ "auth": auth }))
        })
        .collect();
    space.write("docker.json", &serde_json::json!({ "auths": auths }).to_string());
    space.remote.netrc = Some(space.path().join("netrc"));
    space.remote.docker = Some(space.path().join("docker.json"));
    space.remote.hub_token = Some(Token::Given { variable: "HF_TOKEN", text: HF.to_string() });
}

/// How a case ends: with a pin, or with a message that has these words.
type End = Result<(), &'static [&'static str]>;

struct Case {
    name: &'static str,
    source: String,
    change: Box<dyn Fn(&mut Space)>,
    answer: Box<dyn Fn(&Told) -> Answer + Send + Sync>,
    end: End,
    /// Who must have been told which secret, exactly.
    told: Vec<(String, &'static str)>,
    /// Who must not have been asked at all.
    unasked: &'static str,
}

fn case(name: &'static str, source: &str, answer: impl Fn(&Told) -> Answer + Send + Sync + 'static, end: End) -> Case {
    let (source, change) = (source.to_string(), Box::new(|_: &mut Space| {}));
    Case { name, source, change, answer: Box::new(answer), end, told: Vec::new(), unasked: "https://nobody.example:443" }
}

impl Case {
    fn told(mut self, secret: &str, server: &'static str) -> Case {
        self.told.push((secret.to_string(), server));
        self
    }

    fn change(self, change: impl Fn(&mut Space) + 'static) -> Case {
        Case { change: Box::new(change), ..self }
    }

    fn unasked(self, unasked: &'static str) -> Case {
        Case { unasked, ..self }
    }

    fn run(self) {
        let name = self.name;
        let world = World::start(self.answer);
        let mut space = Space::new(&self.source);
        world.reach(&mut space, "");
        plant(&mut space);
        (self.change)(&mut space);
        let ended = space.lock();
        let told = world.told();
        let mut shown = space.news();
        match (&ended, self.end) {
            (Ok(lock), Ok(())) => shown += &format!("{lock:?} {}", fs::read_to_string(space.path().join("slmops.lock")).unwrap()),
            (Err(errors), Err(words)) => {
                let rendered: Vec<String> = errors.iter().map(|error| format!("{}{}", error.render(false), error.to_json())).collect();
                assert!(words.iter().all(|word| rendered[0].contains(word)), "{name}: no {words:?} in {}", rendered[0]);
                shown += &rendered.concat();
            }
            _ => panic!("{name}: {ended:?}"),
        }
        let expected: BTreeMap<&str, BTreeSet<&str>> = self.told.iter().fold(BTreeMap::new(), |mut all, (secret, server)| {
            all.entry(secret.as_str()).or_insert_with(BTreeSet::new).insert(server);
            all
        });
        for secret in secrets() {
            let servers: BTreeSet<&str> = told.iter().filter(|told| told.holds(&secret)).map(|told| told.server.as_str()).collect();
            assert_eq!(servers, expected.get(secret.as_str()).cloned().unwrap_or_default(), "{name}: who was told {secret}");
            assert!(!shown.contains(&secret), "{name}: {secret} in {shown}");
            assert!(world.connects.lock().unwrap().iter().all(|asked| !asked.path.contains(&secret)), "{name}");
        }
        assert!(!told.iter().any(|told| told.server == self.unasked), "{name}: {} was asked", self.unasked);
        for told in &told {
            assert!(told.asked.header("referer").is_none() && told.asked.header("cookie").is_none(), "{name}: {told:?}");
        }
    }
}

fn go(location: &str) -> Answer {
    Answer::of(302, "").header("Location", location)
}

fn ok() -> Answer {
    Answer::of(200, "data")
}

const URL: &str = "{ url = \"https://data.example/a.txt\" }";

#[test]
fn passwords_of_netrc() {
    let at = |text: &'static str| move |told: &Told| if told.asked.path == "/a.txt" { go(text) } else { ok() };
    let all = [
        case("its own host", URL, |_| ok(), Ok(())).told("netrc-data.example", DATA),
        case("a path of the same host", URL, at("/b.txt"), Ok(())).told("netrc-data.example", DATA),
        case("another host", URL, at("https://store.example/b.txt"), Ok(())).told("netrc-data.example", DATA),
        case("another port", URL, at("https://data.example:8443/b.txt"), Ok(())).told("netrc-data.example", DATA),
        case("a name below it", URL, at("https://a.data.example/b.txt"), Ok(())).told("netrc-data.example", DATA),
        case("no encryption", URL, at("http://data.example/b.txt"), Err(&["not encrypted"]))
            .told("netrc-data.example", DATA)
            .unasked("http://data.example:80"),
        case("a user in the redirect", URL, at("https://me:word@store.example/b"), Err(&["holds a user or a password"]))
            .told("netrc-data.example", DATA)
            .unasked(STORE),
        case("another scheme", URL, at("ftp://data.example/b"), Err(&["redirects to `ftp://data.example/b`"]))
            .told("netrc-data.example", DATA),
        case("an unencrypted source", "{ url = \"http://data.example/a.txt\" }", |_| ok(), Ok(())),
        case(
            "an unencrypted source that goes to an encrypted one",
            "{ url = \"http://data.example/a.txt\" }",
            at("https://data.example/b"),
            Ok(()),
        ),
        case("a host without an entry", "{ url = \"https://a.data.example/a.txt\" }", |_| ok(), Ok(())),
        case("a cookie", URL, |told| if told.asked.path == "/a.txt" { go("/b").header("Set-Cookie", "a=b") } else { ok() }, Ok(()))
            .told("netrc-data.example", DATA),
        case(
            "there and back",
            URL,
            |told| match (told.server.as_str(), told.asked.path.as_str()) {
                (DATA, "/a.txt") => go("https://evil.example/"),
                (DATA, _) => {
                    assert!(told.asked.header("authorization").is_none(), "told again after a stranger has led back");
                    ok()
                }
                _ => go("https://data.example/steal?everything"),
            },
            Ok(()),
        )
        .told("netrc-data.example", DATA),
        case(
            "an answer that repeats it",
            URL,
            |told| Answer::of(403, format!("you sent {}", told.asked.header("authorization").unwrap())),
            Err(&["answers 403: you sent …"]),
        )
        .told("netrc-data.example", DATA),
        case(
            "an answer that repeats it in pieces",
            URL,
            |_| Answer::of(403, "{\"error\": \"netrc-\\u0007data\\u200b.example \\u001b[31m\"}"),
            Err(&["answers 403: …"]),
        )
        .told("netrc-data.example", DATA),
        case(
            "a signature in the redirect",
            URL,
            |told| {
                if told.asked.path == "/a.txt" {
                    go("https://store.example/b?sig=netrc-store.example")
                } else {
                    go("http://store.example/b?sig=netrc-store.example")
                }
            },
            Err(&["https://store.example/b?… redirects to http://store.example/b?…"]),
        )
        .told("netrc-data.example", DATA)
        .told("netrc-store.example", STORE),
    ];
    all.into_iter().for_each(Case::run);
}

#[test]
fn the_token_of_the_hub() {
    let rev = "0a".repeat(20);
    let hub = move |told: &Told| {
        let path = told.asked.path.as_str();
        if path.contains("/revision/") {
            Answer::of(200, format!("{{\"sha\": \"{rev}\"}}"))
        } else if path.contains("/tree/") {
            let oid = git2::Oid::hash_object(git2::ObjectType::Blob, b"data").unwrap();
            Answer::of(200, format!("[{{\"type\": \"file\", \"oid\": \"{oid}\", \"size\": 4, \"path\": \"config.json\"}}]"))
        } else {
            ok()
        }
    };
    let file = |answer: fn(&Told) -> Answer| {
        let hub = hub.clone();
        move |told: &Told| if told.asked.path.contains("/resolve/") || !told.server.contains("hub") { answer(told) } else { hub(told) }
    };
    let source = "{ hf = \"org/tiny\" }";
    let plain = |space: &mut Space| space.remote.hub = "http://hub.example".to_string();
    let all = [
        case("the hub", source, hub.clone(), Ok(())).told(HF, HUB),
        case(
            "a store that it leads to",
            source,
            file(|told| if told.server == HUB { go("https://store.example/x") } else { ok() }),
            Ok(()),
        )
        .told(HF, HUB),
        case(
            "there and back",
            source,
            {
                let hub = hub.clone();
                move |told| match (told.server.as_str(), told.asked.path.as_str()) {
                    (HUB, "/api/whoami") => {
                        assert!(told.asked.header("authorization").is_none(), "told again after a stranger has led back");
                        ok()
                    }
                    (HUB, path) if path.contains("/resolve/") => go("https://evil.example/"),
                    (HUB, _) => hub(told),
                    _ => go("https://hub.example/api/whoami"),
                }
            },
            Ok(()),
        )
        .told(HF, HUB),
        case("another port", source, file(|told| if told.server == HUB { go("https://hub.example:444/x") } else { ok() }), Ok(()))
            .told(HF, HUB),
        case("no encryption", source, file(|_| go("http://hub.example/x")), Err(&["not encrypted"]))
            .told(HF, HUB)
            .unasked("http://hub.example:80"),
        case("an address that is not encrypted", source, hub.clone(), Ok(())).change(plain),
        case("one that is not encrypted and wants it", source, |_| Answer::of(401, ""), Err(&["the token was not sent", "HF_ENDPOINT"]))
            .change(plain),
        case(
            "a listing that goes on elsewhere",
            source,
            {
                let hub = hub.clone();
                move |told| match told.asked.path.contains("/tree/") {
                    true => hub(told).header("Link", "<https://evil.example/api/models/org/tiny/tree/x?cursor=1>; rel=\"next\""),
                    false => hub(told),
                }
            },
            Err(&["goes on at another host"]),
        )
        .told(HF, HUB)
        .unasked("https://evil.example:443"),
        case("what is no token", source, hub.clone(), Err(&["the credentials in `HF_TOKEN` cannot be used"])).change(|space| {
            space.remote.hub_token = Some(Token::Given { variable: "HF_TOKEN", text: format!("{HF} x") });
        }),
        case(
            "an answer that repeats it",
            source,
            |_| Answer::of(400, "").header("X-Error-Message", format!("bad token {HF}")),
            Err(&["bad token …"]),
        )
        .told(HF, HUB),
    ];
    all.into_iter().for_each(Case::run);
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry that asks for a token at `realm` and gives blobs from another host.
fn registry(realm: &'static str, needs_login: bool) -> impl Fn(&Told) -> Answer + Clone + Send + Sync {
    move |told: &Told| {
        let digest = format!("sha256:{}", sha256(b"weights"));
        if told.asked.path.contains("/token") {
            return match told.asked.header("authorization") {
                None if needs_login => Answer::of(401, ""),
                _ => Answer::of(200, format!("{{\"token\": \"{TOKEN}\"}}")),
            };
        }
        if told.server == STORE {
            return Answer::of(200, "weights");
        }
        if told.asked.header("authorization").is_none_or(|value| !value.contains(TOKEN) && !value.starts_with("Basic ")) {
            let challenge = match realm {
                "basic" => "Basic realm=\"x\"".to_string(),
                realm => format!("Bearer realm=\"{realm}\",service=\"registry\""),
            };
            return Answer::of(401, "").header("WWW-Authenticate", challenge);
        }
        if told.asked.path.contains("/manifests/") {
            let layer = serde_json::json!({"mediaType": "application/vnd.cncf.model.weight.v1.raw", "digest": digest, "size": 7,
                "annotations": {"org.cncf.model.filepath": "model.gguf"}});
            let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [layer]});
            return Answer::of(200, manifest.to_string()).header("Content-Type", MANIFEST);
        }
        Answer::of(307, "").header("Location", "https://store.example/blob")
    }
}

#[test]
fn logins_of_registries() {
    let source = "{ oci = \"registry.example/team/model:1\" }";
    let allow = |list: &'static str| move |space: &mut Space| space.remote.token_servers = Some(list.to_string());
    let login = "docker-registry.example";
    let foreign: End =
        Err(&["only to those who may have it", "was not sent to auth.example", "SLMOPS_TOKEN_SERVERS=registry.example=auth.example"]);
    let all = [
        case("by password", source, registry("basic", true), Ok(())).told(login, REGISTRY),
        case("its own token server", source, registry("https://registry.example/token", true), Ok(()))
            .told(login, REGISTRY)
            .told(TOKEN, REGISTRY),
        case("another token server, for all", source, registry("https://auth.example/token", false), Ok(())).told(TOKEN, REGISTRY),
        case("another token server that wants a login", source, registry("https://auth.example/token", true), foreign),
        case(
            "another port",
            source,
            registry("https://registry.example:5001/token", true),
            Err(&["was not sent to registry.example:5001"]),
        ),
        case("another token server that the user names", source, registry("https://auth.example/token", true), Ok(()))
            .change(allow("registry.example=auth.example"))
            .told(login, AUTH)
            .told(TOKEN, REGISTRY),
        case("a token server that the user names for another registry", source, registry("https://auth.example/token", true), foreign)
            .change(allow("evil.example=auth.example,auth.example=registry.example")),
        case(
            "a list that is none",
            source,
            registry("https://auth.example/token", true),
            Err(&["SLMOPS_TOKEN_SERVERS", "is not written as"]),
        )
        .change(allow("auth.example")),
        case("no encryption", source, registry("http://registry.example/token", true), Err(&["a kind of login that slmops does not know"]))
            .unasked("http://registry.example:80"),
        case("a server on this machine", source, registry("http://localhost:1/token", true), Err(&["a kind of login"])),
        case("a user in the realm", source, registry("https://me:word@auth.example/token", true), Err(&["a kind of login"])).unasked(AUTH),
        case("Docker's", "{ oci = \"docker.io/team/model:1\" }", registry("https://auth.docker.io/token", true), Ok(()))
            .told("docker-https://index.docker.io/v1/", "https://auth.docker.io:443")
            .told(TOKEN, "https://registry-1.docker.io:443"),
        case("Docker's, for a stranger", source, registry("https://auth.docker.io/token", true), Err(&["was not sent to auth.docker.io"])),
        case("GitLab's", "{ oci = \"registry.gitlab.com/team/model:1\" }", registry("https://gitlab.com/token", true), Ok(()))
            .told("docker-registry.gitlab.com", "https://gitlab.com:443")
            .told(TOKEN, "https://registry.gitlab.com:443"),
        case(
            "a question of a host that it leads to",
            source,
            |told| match told.server.as_str() {
                REGISTRY => go("https://evil.example/v2/"),
                _ => Answer::of(401, "").header("WWW-Authenticate", "Basic realm=\"registry.example\""),
            },
            Err(&["only to those who may have it"]),
        ),
    ];
    all.into_iter().for_each(Case::run);
}

#[test]
fn passwords_of_git_and_headers_of_lfs() {
    let origin = Space::new("{ path = \"slmops.toml\" }");
    let folder = repository(&origin);
    commit(&folder, &[("x", b"one")]);
    let lfs = origin.path().join("origin/lfs.git");
    fs::create_dir_all(&lfs).unwrap();
    git(&lfs, &["init", "-q", "-b", "main"]);
    commit(&lfs, &[("w.bin", &pointer(b"large"))]);
    let root = origin.path().join("origin");
    let plain = {
        let root = root.clone();
        move |told: &Told| backend(&root, &told.asked)
    };
    let leads = {
        let plain = plain.clone();
        move |told: &Told| if told.server == GIT { go(&format!("https://evil.example{}", told.asked.path)) } else { plain(told) }
    };
    let offer = |action: serde_json::Value| {
        let plain = plain.clone();
        move |told: &Told| match told.asked.path.as_str() {
            "/large" => go("https://evil.example/larger"),
            "/larger" | "/w" => Answer::of(200, "large"),
            path if path.contains("/info/lfs/") => {
                let answer = serde_json::json!({"objects": [{"oid": sha256(b"large"), "size": 5, "actions": {"download": action}}]});
                Answer::of(200, answer.to_string())
            }
            _ => plain(told),
        }
    };
    let header = |name: &str| serde_json::json!({"href": "https://store.example/w", "header": {name: ACTION}});
    let source = "{ git = \"https://git.example/data.git\" }";
    let large = "{ git = \"https://git.example/lfs.git\" }";
    let own = "netrc-git.example";
    let all = [
        case("its own host", source, plain.clone(), Ok(())).told(own, GIT),
        case("another host that it moves to", source, leads, Ok(())).told(own, GIT),
        case("no encryption", "{ git = \"http://git.example/data.git\" }", plain.clone(), Ok(())),
        case("a store of large files", large, offer(serde_json::json!({"href": "https://store.example/w"})), Ok(())).told(own, GIT),
        case("a store with headers of its own", large, offer(header("Authorization")), Ok(())).told(own, GIT).told(ACTION, STORE),
        case("another header", large, offer(header("X-Token")), Ok(())).told(own, GIT).told(ACTION, STORE),
        case(
            "a store that leads elsewhere",
            large,
            offer(serde_json::json!({"href": "https://store.example/large", "header": {"Authorization": ACTION}})),
            Ok(()),
        )
        .told(own, GIT)
        .told(ACTION, STORE),
        case("a header for the proxy", large, offer(header("Proxy-Authorization")), Err(&["not its to set"])).told(own, GIT).unasked(STORE),
        case("a header that names a host", large, offer(header("host")), Err(&["not its to set"])).told(own, GIT).unasked(STORE),
        case("a header that frames", large, offer(header("Transfer-Encoding")), Err(&["not its to set"])).told(own, GIT).unasked(STORE),
        case(
            "a header of two lines",
            large,
            offer(serde_json::json!({"href": "https://store.example/w", "header": {"X": "a\r\nAuthorization: b"}})),
            Err(&["no request can have"]),
        )
        .told(own, GIT)
        .unasked(STORE),
        case("a store that is not encrypted", large, offer(serde_json::json!({"href": "http://store.example/w"})), Err(&["not encrypted"]))
            .told(own, GIT)
            .unasked("http://store.example:80"),
        case("a user in the address", large, offer(serde_json::json!({"href": "https://me:word@store.example/w"})), Err(&["holds a user"]))
            .told(own, GIT)
            .unasked(STORE),
        case(
            "a server that repeats it",
            large,
            {
                let plain = plain.clone();
                move |told: &Told| match told.asked.path.contains("/info/lfs/") {
                    true => Answer::of(
                        200,
                        serde_json::json!({"objects": [{"oid": sha256(b"large"), "error": {"code": 404, "message": format!("no {own}\u{1b}[2J")}}]}).to_string(),
                    ),
                    false => plain(told),
                }
            },
            Err(&["404 no …"]),
        )
        .told(own, GIT),
    ];
    all.into_iter().for_each(Case::run);
}

#[test]
fn passwords_of_proxies_and_servers_on_this_machine() {
    let world = World::start(|_| ok());
    let mut space = Space::new(URL);
    world.reach(&mut space, &format!("me:{PROXY}@"));
    space.lock().unwrap();
    let connects = world.connects.lock().unwrap().clone();
    assert!(connects.iter().all(|asked| asked.header("proxy-authorization").is_some()) && !connects.is_empty());
    assert!(world.told().iter().all(|told| !told.holds(PROXY) && told.asked.header("proxy-authorization").is_none()));

    // What the proxy says is shown, what it was told is not.
    space.manifest("{ url = \"https://none.example/a\" }");
    let error = space.lock_fails();
    assert!(error.message.contains("the proxy refuses") && error.is_environment, "{error:?}");
    assert!(!format!("{error:?} {:?}", space.remote).contains(PROXY));

    // A server on this machine is asked directly: what is meant for it would leave the machine.
    let local = crate::server::Server::start(|_| ok());
    space.manifest(&format!("{{ url = \"{}/a.txt\" }}", local.url));
    space.write("netrc", "machine 127.0.0.1 login me password netrc-local\n");
    space.remote.netrc = Some(space.path().join("netrc"));
    world.connects.lock().unwrap().clear();
    space.lock().unwrap();
    assert!(local.asked()[0].header("authorization").is_some() && world.connects.lock().unwrap().is_empty());

    for (address, why) in [("socks5://me:word@p.example:1", "no SOCKS"), ("nonsense://x", "not the address of a proxy")] {
        let named = slmops::source::http::proxy::Named { variable: "HTTPS_PROXY", address: address.to_string() };
        space.remote.proxies.secure = Some(named);
        space.manifest(URL);
        let error = space.lock_fails();
        assert!(error.message.contains(why) && error.message.contains("HTTPS_PROXY") && error.is_environment, "{error:?}");
        assert!(!format!("{error:?}").contains("word"));
    }
}

#[test]
fn passwords_in_a_manifest_are_refused_and_not_shown() {
    for source in [
        "{ url = \"https://me:pass-word@data.example/x\" }",
        "{ url = \"https://pass-word@data.example/x\" }",
        "{ url = \"http://me:pass/word@data.example/x\" }",
        "{ url = \"ftp://me:pass-word@data.example/x\" }",
        "{ git = \"https://pass-word@git.example/x\" }",
        "{ git = \"ssh://me:pass-word@git.example/x\" }",
        "{ git = \"me:pass-word@git.example/x\" }",
        "{ hf = \"https://me:pass-word@hub.example/a/b\" }",
        "{ oci = \"me:pass-word@registry.example/a:1\" }",
        "{ oci = \"https://me:pass-word@registry.example/a:1\" }",
    ] {
        let space = Space::new(source);
        let error = space.lock_fails();
        let shown = format!("{}{}", error.render(true), error.to_json());
        assert!(!shown.contains("pass-word") && !shown.contains("pass/word"), "{shown}");
        assert!(shown.contains("slmops.toml:5:") && shown.contains("user or a password"), "{shown}");
        assert!(!error.is_environment && !space.path().join("slmops.lock").exists());
    }
}

#[test]
fn files_of_credentials_that_cannot_be_read_are_told() {
    let world = World::start(|_| ok());
    let mut space = Space::new(URL);
    world.reach(&mut space, "");
    fs::create_dir(space.path().join("netrc")).unwrap();
    space.remote.netrc = Some(space.path().join("netrc"));
    let error = space.lock_fails();
    assert!(error.message.contains("netrc` cannot be used: it is not a file") && error.is_environment, "{error:?}");
    assert!(world.told().is_empty());

    let world = World::start(registry("https://registry.example/token", true));
    let mut space = Space::new("{ oci = \"registry.example/team/model:1\" }");
    world.reach(&mut space, "");
    space.write("docker.json", "{ \"auths\": { \"registry.example\": { \"auth\": \"c2Vjc");
    space.remote.docker = Some(space.path().join("docker.json"));
    let error = space.lock_fails();
    assert!(error.message.contains("docker.json` cannot be used: it is not JSON") && error.is_environment, "{error:?}");
}
