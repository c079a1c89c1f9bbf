//! The program as a person meets it: environment, exit codes, what it says.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::hub::{Hub, NAME};
use crate::space::{Space, files, noise};

struct Ran {
    code: Option<i32>,
    said: String,
}

fn slmops(space: &Space, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slmops"));
    command.args(arguments).current_dir(space.path()).env_clear().env("HOME", space.path());
    command.envs(environment.iter().copied());
    let output = command.output().unwrap();
    Ran { code: output.status.code(), said: String::from_utf8(output.stderr).unwrap() }
}

#[test]
fn the_environment_says_where_the_hub_is_and_who_asks() {
    let hub = Hub::of_models();
    let commit = hub.commit("main", &[("config.json", b"{}"), ("model.safetensors", &noise(2000)), ("pytorch_model.bin", b"x")]);
    hub.state.lock().unwrap().gate = Some("hf_mine".into());
    let space = Space::new(&format!("{{ hf = \"{NAME}\" }}"));
    let endpoint = ("HF_ENDPOINT", hub.server.url.as_str());

    let ran = slmops(&space, &["lock"], &[endpoint]);
    assert_eq!(ran.code, Some(2), "{}", ran.said);
    assert!(ran.said.contains("slmops.toml:5:12") && ran.said.contains("HF_TOKEN"), "{}", ran.said);

    let ran = slmops(&space, &["lock"], &[endpoint, ("HF_TOKEN", " hf_mine\n")]);
    assert_eq!(ran.code, Some(0), "{}", ran.said);
    for text in ["fetching a from org/tiny", "2 files", "left out are pytorch_model.bin", &format!("a is now pinned to {}", &commit[..12])]
    {
        assert!(ran.said.contains(text), "no `{text}` in {}", ran.said);
    }
    assert!(!ran.said.contains("hf_mine"));

    // Where `hf auth login` puts it.
    space.forget();
    space.write(".cache/huggingface/token", "hf_mine\n");
    let ran = slmops(&space, &["build", "--offline", "a"], &[endpoint]);
    assert!(ran.code == Some(2) && ran.said.contains("not on this machine"), "{}", ran.said);
    hub.server.asked();
    assert_eq!(slmops(&space, &["lock"], &[endpoint]).code, Some(0));
    assert!(hub.server.asked().iter().all(|asked| asked.header("authorization") == Some("Bearer hf_mine")));
    assert_eq!(files(&space.fetched()).len(), 2);

    // Nobody is asked for what is here.
    let nowhere = ("HF_ENDPOINT", "http://127.0.0.1:1");
    assert_eq!(slmops(&space, &["check"], &[nowhere]).code, Some(0));
    assert_eq!(slmops(&space, &["lock", "--check"], &[nowhere]).code, Some(0));
    let ran = slmops(&space, &["lock"], &[nowhere]);
    assert_eq!(ran.code, Some(3), "{}", ran.said);
    assert!(ran.said.contains("cannot reach 127.0.0.1:1") && ran.said.contains("HTTPS_PROXY"), "{}", ran.said);
}

#[test]
fn a_proxy_is_used_where_the_environment_names_one() {
    let space = Space::new("{ url = \"http://data.example/a.txt\" }");
    let proxy = crate::server::Server::start(|asked| match asked.path.as_str() {
        "http://data.example/a.txt" => crate::server::Answer::of(200, "data"),
        _ => crate::server::Answer::of(405, ""),
    });
    let ran = slmops(&space, &["lock"], &[("HTTP_PROXY", &proxy.url)]);
    let asked = proxy.asked();
    // A proxy is asked for the whole address, or for a tunnel to the host.
    assert!(!asked.is_empty() && asked[0].path.contains("data.example"), "{asked:?} {}", ran.said);
}

/// Runs it and tells the most memory that it had at once, in bytes.
fn measured(space: &Space, arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, u64) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slmops"));
    command.args(arguments).current_dir(space.path()).env_clear().env("HOME", space.path()).envs(environment.iter().copied());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        // The kernel keeps the peak; only what comes in the last moment is missed.
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let now = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(now.unwrap_or(0) * 1024);
        if let Some(status) = child.try_wait().unwrap() {
            return (status.code(), peak);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

const MOST_BYTES: u64 = 150 << 20;

#[test]
fn hostile_archives_and_listings_need_little_memory() {
    // A header that says it has a gigabyte, and one that really has it, packed into one MiB.
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_size(1 << 30);
    header.set_cksum();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(header.as_bytes()).unwrap();
    for _ in 0..1 << 10 {
        encoder.write_all(&[b'x'; 1 << 20]).unwrap();
    }
    let archive = encoder.finish().unwrap();
    let archive_url = crate::server::Server::start(move |asked| crate::server::Answer::ranged(asked, &archive));
    let space = Space::new(&format!("{{ url = \"{}/a.tar.gz\", unpack = true }}", archive_url.url));
    let (code, peak) = measured(&space, &["lock"], &[]);
    assert!(code == Some(2) && peak < MOST_BYTES, "{code:?} {peak}");

    // A listing of as many files as may be, with names as long as may be, and one more.
    let name = "n".repeat(200);
    let hub = crate::server::Server::start(move |asked| {
        if asked.path.contains("/revision/") {
            return crate::server::Answer::of(200, format!("{{\"sha\": \"{}\"}}", "0b".repeat(20)));
        }
        let number = asked.path.rsplit_once("cursor=").map_or(0, |(_, number)| number.parse::<usize>().unwrap());
        let oid = "0a".repeat(20);
        let entries: Vec<String> = (0..10_000)
            .map(|i| format!("{{\"type\": \"file\", \"oid\": \"{oid}\", \"size\": 4, \"path\": \"{number:03}/{i:05}/{name}/{name}/{name}/{name}/x.json\"}}"))
            .collect();
        let next = format!("<{}?cursor={}>; rel=\"next\"", asked.path.split('?').next().unwrap(), number + 1);
        crate::server::Answer::of(200, format!("[{}]", entries.join(","))).header("Link", next)
    });
    let space = Space::new(&format!("{{ hf = \"{NAME}\" }}"));
    let (code, peak) = measured(&space, &["lock"], &[("HF_ENDPOINT", &hub.url)]);
    assert!(code == Some(2) && peak < MOST_BYTES, "{code:?} {peak}");
}

#[test]
fn a_transfer_ends_at_once_when_asked_to() {
    let server = crate::server::Server::raw(|_, out| {
        write!(out, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
        out.flush()?;
        loop {
            out.write_all(b"x")?;
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let space = Space::new(&format!("{{ url = \"{}/a.txt\" }}", server.url));
    for command in ["lock", "build"] {
        if command == "build" {
            // A pin that is not here is fetched before anything is built.
            let zeros = "0".repeat(64);
            let pin = format!(
                "version = 1\n\n[[source]]\nname = \"a\"\nurl = \"{}/a.txt\"\nsha256 = \"{zeros}\"\ntree = \"{zeros}\"\n",
                server.url
            );
            space.write("slmops.lock", &pin);
        }
        server.asked();
        let mut child = Command::new(env!("CARGO_BIN_EXE_slmops"));
        let mut child = child.arg(command).current_dir(space.path()).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        while server.asked().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(30) && child.try_wait().unwrap().is_none(), "{command}");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(200));
        let asked = Instant::now();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
        let status = child.wait().unwrap();
        assert!(asked.elapsed() < Duration::from_secs(2) && !status.success(), "{command}: {:?} {status:?}", asked.elapsed());
    }
}

#[test]
fn what_the_environment_says_wrong_is_told_without_secrets() {
    let space = Space::new("{ url = \"https://data.example/a.txt\" }");
    for (variable, value, why) in [
        ("HTTPS_PROXY", "socks5://me:pass-word@proxy.example", "no SOCKS"),
        ("ALL_PROXY", "nonsense://me:pass-word@proxy.example", "not the address of a proxy"),
    ] {
        let ran = slmops(&space, &["lock"], &[(variable, value)]);
        assert!(ran.code == Some(3) && ran.said.contains(why) && ran.said.contains(variable), "{} {:?}", ran.said, ran.code);
        assert!(!ran.said.contains("pass-word"), "{}", ran.said);
    }
    let space = Space::new(&format!("{{ hf = \"{NAME}\" }}"));
    let ran = slmops(&space, &["lock"], &[("HF_ENDPOINT", "http://127.0.0.1:1"), ("HF_TOKEN", "hf_pass word")]);
    assert!(ran.code == Some(3) && ran.said.contains("`HF_TOKEN` cannot be used") && !ran.said.contains("hf_pass"), "{}", ran.said);
    let space = Space::new("{ git = \"https://me:pass-word@git.example/x\" }");
    for command in [&["check"][..], &["lock"], &["plan"], &["check", "--json"]] {
        let ran = slmops(&space, command, &[]);
        assert!(ran.code == Some(2) && !ran.said.contains("pass-word"), "{command:?} {:?} {}", ran.code, ran.said);
    }
}

/// git's own configuration, whoever a repository belongs to, and what is no repository.
#[test]
fn a_repository_of_this_machine_is_read_without_the_configuration_of_git() {
    let space = Space::new("{ git = \"upstream\", path = \"text\" }");
    space.write("upstream/text", "text\n");
    for arguments in [&["init", "-q", "-b", "main"][..], &["add", "text"], &["commit", "-q", "-m", "text"]] {
        crate::git::git(&space.path().join("upstream"), arguments);
    }
    space.write(".gitconfig", "[not a configuration\n");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(space.path().join("upstream"), Some(65534), None).unwrap();
        std::os::unix::fs::chown(space.path().join("upstream/.git"), Some(65534), None).unwrap();
    }
    let ran = slmops(&space, &["lock"], &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.said);
    // Its objects are gone: that is no fault of the manifest.
    space.forget();
    std::fs::rename(space.path().join("upstream/.git/objects"), space.path().join("objects")).unwrap();
    let ran = slmops(&space, &["lock"], &[]);
    assert!(ran.code == Some(3) && ran.said.contains("git: "), "{}", ran.said);
    std::fs::remove_dir_all(space.path().join("upstream/.git")).unwrap();
    let ran = slmops(&space, &["lock"], &[]);
    assert!(ran.code == Some(2) && ran.said.contains("`upstream` is not a git repository"), "{}", ran.said);
}
