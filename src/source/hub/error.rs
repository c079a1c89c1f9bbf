//! Why the Hub gives no files, and what its visitor can do about it.

use crate::source::http::{Address, HttpError};
use crate::source::out::OutError;

/// Whose repository it is about.
#[derive(Clone, Debug)]
pub struct Who {
    pub noun: &'static str,
    pub repository: String,
    pub hub: Address,
    /// Where a person looks at it.
    pub page: String,
    pub token: TokenUse,
}

/// What became of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenUse {
    None,
    Sent,
    /// The Hub's address is not encrypted.
    Withheld,
}

const WITHHELD: &str = "the token was not sent, because the address in HF_ENDPOINT is not encrypted";

#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("{} has no {} `{}`, or shows it only to those who may see it", .0.hub.authority(), .0.noun, .0.repository)]
    Missing(Box<Who>),
    #[error("`{}` is gated: {} gives it only to those whom its owners have let in", .0.repository, .0.hub.authority())]
    Gated(Box<Who>),
    #[error("{} does not take the token", .0.hub.authority())]
    Token(Box<Who>),
    #[error("`{}` has no revision `{revision}`", .who.repository)]
    Revision { who: Box<Who>, revision: String },
    #[error("the repository has no file or folder `{0}`")]
    Path(String),
    #[error("no file of the repository matches the patterns")]
    Nothing { some: Vec<String> },
    #[error("the repository cannot be used: {0}")]
    Out(#[from] OutError),
    #[error("it has more than {0} files")]
    Files(usize),
    #[error("the repository has its weights only in formats that are left out: {}", listed(.0))]
    Unloved(Vec<String>),
    #[error("the repository holds {} GGUF files", .0.len())]
    Many(Vec<String>),
}

impl HubError {
    pub fn help(&self) -> Option<String> {
        let help = match self {
            HubError::Http(error) => return error.help(),
            HubError::Missing(who) => {
                let other = if who.noun == "model" { "; a dataset needs `repo_type = \"dataset\"`" } else { "; a model needs `repo_type = \"model\"`" };
                let token = match who.token {
                    TokenUse::Sent => "the token may not see it",
                    TokenUse::None => "a private one needs a token in HF_TOKEN",
                    TokenUse::Withheld => WITHHELD,
                };
                format!("check the name; {token}{other}")
            }
            HubError::Gated(who) if who.token == TokenUse::Withheld => WITHHELD.to_string(),
            HubError::Gated(who) if who.token == TokenUse::Sent => {
                format!("accept its conditions at {}, with the account that the token belongs to", who.page)
            }
            HubError::Gated(who) => format!("accept its conditions at {}, then put a token of your account into HF_TOKEN", who.page),
            HubError::Token(who) => format!("it has expired or was revoked: make a new one at {}", who.hub.below("/settings/tokens")),
            HubError::Revision { .. } => "`revision` is a branch, a tag or a commit of the repository".to_string(),
            HubError::Nothing { some } => format!("it has {}", listed(some)),
            HubError::Unloved(_) => {
                "slmops reads safetensors and GGUF: take a repository that has them, or name the files that you want in `include = [\"*.json\"]`".to_string()
            }
            HubError::Many(names) => format!("name one: `path = \"{}\"`", names.first().map_or("model.gguf", String::as_str)),
            HubError::Files(_) => "`include` and `path` choose among the files of a listing; they make the listing no shorter".to_string(),
            HubError::Path(_) | HubError::Out(_) => return None,
        };
        Some(help)
    }

    /// Whether the manifest is not to blame.
    pub fn is_environment(&self) -> bool {
        match self {
            HubError::Http(error) => error.is_environment(),
            HubError::Out(OutError::Io(_)) => true,
            _ => false,
        }
    }
}

/// The first few names.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut text = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}
