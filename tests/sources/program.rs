//! The program as a person meets it: environment, exit codes, what it says.

use std::process::Command;

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
