//! How the network is reached, as the environment says it, and what is shown while a source is fetched.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::shell::Shell;
use crate::base::units;
use crate::source::http::Proxies;
use crate::source::http::proxy::Named;
use crate::source::{News, Remote, Token, Watch};

/// Variables as the Hub's own tools, curl and Docker read them.
pub fn remote(shell: &Shell) -> Remote {
    let home = variable("HOME").map(PathBuf::from);
    let hub_home = variable("HF_HOME").map(PathBuf::from).or_else(|| {
        let caches = variable("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(".cache")))?;
        Some(caches.join("huggingface"))
    });
    let given = |name| variable(name).map(|text| Token::Given { variable: name, text });
    let token = given("HF_TOKEN").or_else(|| given("HUGGING_FACE_HUB_TOKEN")).or_else(|| {
        let file = variable("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(hub_home?.join("token")))?;
        Some(Token::File(file))
    });
    let netrc = variable("NETRC").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(".netrc")));
    let docker = variable("DOCKER_CONFIG").map(PathBuf::from).or_else(|| Some(home?.join(".docker")));
    let watch: Arc<dyn Watch> = match (shell.live, shell.quiet || shell.json) {
        (_, true) => Arc::new(crate::source::remote::Nobody),
        (true, false) => Arc::new(Show::live()),
        (false, false) => Arc::new(Show::plain()),
    };
    let defaults = Remote::default();
    Remote {
        hub: variable("HF_ENDPOINT").unwrap_or(defaults.hub),
        hub_token: token,
        proxies: proxies(),
        certificates: variable("SSL_CERT_FILE").map(PathBuf::from),
        netrc,
        docker: docker.map(|folder| folder.join("config.json")),
        token_servers: variable("SLMOPS_TOKEN_SERVERS"),
        watch,
        ..defaults
    }
}

/// As curl reads them: each scheme has a variable of its own, and `ALL_PROXY` stands for both.
fn proxies() -> Proxies {
    let first = |names: &[&'static str]| names.iter().find_map(|name| Some(Named { variable: name, address: variable(name)? }));
    let except = variable("NO_PROXY").or_else(|| variable("no_proxy")).unwrap_or_default();
    Proxies {
        secure: first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
        plain: first(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]),
        except: except.split(',').map(str::to_string).collect(),
    }
}

#[expect(clippy::disallowed_methods, reason = "cli is the room that reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// Names of files that one line shows.
const SHOWN: usize = 6;

/// Lines, and on a terminal a bar.
struct Show {
    bar: Option<ProgressBar>,
    source: Mutex<String>,
}

impl Show {
    fn live() -> Show {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Show { bar: Some(bar), source: Mutex::default() }
    }

    fn plain() -> Show {
        Show { bar: None, source: Mutex::default() }
    }

    fn line(&self, text: String) {
        let write = || {
            let _gone = writeln!(std::io::stderr().lock(), "{text}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn source(&self) -> String {
        self.source.lock().unwrap_or_else(|broken| broken.into_inner()).clone()
    }
}

impl Watch for Show {
    fn hear(&self, news: &News) {
        match news {
            News::Begins { source, from } => {
                *self.source.lock().unwrap_or_else(|broken| broken.into_inner()) = source.to_string();
                self.line(format!("fetching {source} from {from}"));
            }
            News::Sized { files, size_bytes } => {
                let noun = if *files == 1 { "file" } else { "files" };
                self.line(format!("{}: {files} {noun}, {}", self.source(), units::show_size(*size_bytes)));
                if let Some(bar) = &self.bar {
                    let style = ProgressStyle::with_template("{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}");
                    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                    bar.set_position(0);
                    bar.set_length(*size_bytes);
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                    bar.enable_steady_tick(Duration::from_millis(250));
                }
            }
            News::Found { bytes } | News::Fetched { bytes } => {
                if let Some(bar) = &self.bar {
                    bar.inc(*bytes);
                }
            }
            News::LeftOut { files } => {
                let mut names = files.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
                if files.len() > SHOWN {
                    names += &format!(" and {} more", files.len() - SHOWN);
                }
                self.line(format!("{}: left out are {names} (`include` names what is wanted)", self.source()));
            }
            News::Waits { seconds, why } => self.line(format!("{}: {why}; trying again in {seconds} s", self.source())),
            News::Ends { .. } => {
                if let Some(bar) = &self.bar {
                    bar.disable_steady_tick();
                    bar.finish_and_clear();
                    bar.set_draw_target(ProgressDrawTarget::hidden());
                }
            }
        }
    }
}
