//! Why a registry gives no files.

use super::Name;
use super::login::TOKEN_SERVERS_VARIABLE;
use crate::source::http::HttpError;
use crate::source::out::OutError;
use crate::source::unpack::UnpackError;

#[derive(Debug, thiserror::Error)]
pub enum OciError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("`{text}` names nothing in a registry: {why}")]
    Name { text: String, why: &'static str },
    #[error("{} has no `{}:{}`, or shows it only to those who may see it", .0.registry.authority(), .0.repository, .0.reference)]
    Missing(Box<Name>),
    #[error("{} gives `{}` only to those who may have it", .name.registry.authority(), .name.repository)]
    Refused { name: Box<Name>, is_known: bool, stranger: Option<String> },
    #[error("{0} wants a kind of login that slmops does not know: `{1}`")]
    Login(String, String),
    #[error("the manifest is not the one that was asked for: its digest is {found}, not {expected}")]
    Digest { expected: String, found: String },
    #[error("the manifest cannot be used: {0}")]
    Manifest(String),
    #[error("the tag stands for {0} artifacts")]
    Many(usize),
    #[error("the tag stands for an index within an index")]
    Nested,
    #[error("it is a container image, not an artifact of files")]
    Image,
    #[error("the layer {digest} is a `{media_type}`, which slmops cannot unpack")]
    Layer { digest: String, media_type: String },
    #[error("the artifact cannot be used: {0}")]
    Out(#[from] OutError),
    #[error("the layer {0} cannot be unpacked: {1}")]
    Unpack(String, UnpackError),
    #[error("the artifact has no file or folder `{0}`")]
    Path(String),
}

impl OciError {
    pub fn help(&self) -> Option<String> {
        match self {
            OciError::Http(error) => error.help(),
            OciError::Name { .. } => {
                Some("write it as `registry.example/team/model:1.0` or `registry.example/team/model@sha256:…`".to_string())
            }
            OciError::Missing(_) => Some("check the name and the tag".to_string()),
            OciError::Refused { name, stranger: Some(stranger), .. } => Some(format!(
                "the login for {0} was not sent to {stranger}, where {0} asks for it: if that server belongs to it, set {TOKEN_SERVERS_VARIABLE}={0}={stranger}",
                name.registry.authority()
            )),
            OciError::Refused { name, is_known: false, .. } => {
                Some(format!("log in first: `docker login {0}` or `oras login {0}`", name.registry.authority()))
            }
            OciError::Refused { is_known: true, .. } => Some("the account that is logged in may not read it".to_string()),
            OciError::Many(_) => Some("name one by its digest: `registry.example/team/model@sha256:…`".to_string()),
            OciError::Layer { .. } => Some("push it as plain files, as tar or as tar with gzip".to_string()),
            _ => None,
        }
    }

    /// Whether the manifest is not to blame.
    pub fn is_environment(&self) -> bool {
        match self {
            OciError::Http(error) => error.is_environment(),
            OciError::Digest { .. } | OciError::Out(OutError::Io(_)) | OciError::Unpack(_, UnpackError::Io(_)) => true,
            _ => false,
        }
    }
}
