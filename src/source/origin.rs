//! Where one source comes from, as the manifest says it.

use super::{entry, web};
use crate::manifest::Protocol;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Path { path: String },
    Git { url: String, want: Want, path: Option<String> },
    Hub(HubOrigin),
    Web(WebOrigin),
    Oci(OciOrigin),
}

/// What of a git repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    Head,
    Branch(String),
    Tag(String),
    Rev(String),
}

/// A repository on the Hugging Face Hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubOrigin {
    /// `org/name`
    pub repository: String,
    pub holds: Holds,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// A file or folder within the repository.
    pub path: Option<String>,
    /// Patterns; none means what the kind of repository suggests.
    pub include: Vec<String>,
    pub exclude: Vec<String>,
}

/// One file at a web address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebOrigin {
    pub url: String,
    /// What it must be, if the manifest says so.
    pub sha256: Option<String>,
    pub unpack: bool,
    /// A file or folder within the archive.
    pub path: Option<String>,
}

/// An artifact in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciOrigin {
    /// `registry/repository:tag`
    pub reference: String,
    /// A file or folder within the artifact.
    pub path: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Model,
    Dataset,
}

impl Holds {
    pub fn noun(self) -> &'static str {
        match self {
            Holds::Model => "model",
            Holds::Dataset => "dataset",
        }
    }
}

impl Want {
    /// As the lock file keeps it: `branch main`.
    pub fn text(&self) -> String {
        match self {
            Want::Head => "head".to_string(),
            Want::Branch(name) => format!("branch {name}"),
            Want::Tag(name) => format!("tag {name}"),
            Want::Rev(rev) => format!("rev {rev}"),
        }
    }
}

impl HubOrigin {
    fn want(&self) -> String {
        let mut text = match self.holds {
            Holds::Model => String::new(),
            Holds::Dataset => "dataset, ".to_string(),
        };
        text += &format!("revision {}", self.revision);
        for (word, patterns) in [("include", &self.include), ("exclude", &self.exclude)] {
            if !patterns.is_empty() {
                text += &format!(", {word} {}", patterns.join(" "));
            }
        }
        text
    }
}

impl Origin {
    /// How it is spoken to, if it is not on this machine.
    pub fn protocol(&self) -> Option<Protocol> {
        match self {
            Origin::Path { .. } => None,
            Origin::Git { .. } => Some(Protocol::Git),
            Origin::Hub(_) => Some(Protocol::Hub),
            Origin::Web(_) => Some(Protocol::Url),
            Origin::Oci(_) => Some(Protocol::Oci),
        }
    }

    /// As written: a path, a URL, a repository's name.
    pub fn address(&self) -> &str {
        match self {
            Origin::Path { path } => path,
            Origin::Git { url, .. } => url,
            Origin::Hub(hub) => &hub.repository,
            Origin::Web(web) => &web.url,
            Origin::Oci(oci) => &oci.reference,
        }
    }

    /// What of it, as the lock keeps it.
    pub fn want(&self) -> String {
        match self {
            Origin::Path { .. } | Origin::Oci(_) => String::new(),
            Origin::Web(web) => if web.unpack { "unpacked" } else { "" }.to_string(),
            Origin::Git { want, .. } => want.text(),
            Origin::Hub(hub) => hub.want(),
        }
    }

    /// Below its root, if not all of it.
    pub fn path(&self) -> Option<&str> {
        match self {
            Origin::Path { .. } => None,
            Origin::Git { path, .. } => path.as_deref(),
            Origin::Hub(hub) => hub.path.as_deref(),
            Origin::Web(web) => web.path.as_deref(),
            Origin::Oci(oci) => oci.path.as_deref(),
        }
    }

    /// Where it stands within its tree, if it is not the whole of it.
    pub fn inner(&self) -> Option<String> {
        match self {
            Origin::Path { .. } => None,
            Origin::Git { path, .. } => path.as_deref().map(|path| entry::file_name(path).to_string()),
            Origin::Hub(hub) => hub.path.as_deref().map(|path| entry::file_name(path).to_string()),
            Origin::Web(web) if !web.unpack => Some(web::name(web)),
            Origin::Web(WebOrigin { path, .. }) | Origin::Oci(OciOrigin { path, .. }) => path.clone(),
        }
    }

    /// Whether a pin could be of what the manifest says.
    pub fn allows(&self, rev: &str) -> bool {
        match self {
            Origin::Web(WebOrigin { sha256: Some(sha256), .. }) => sha256 == rev,
            _ => true,
        }
    }

    /// Whether the manifest itself says exactly what it comes to, so that nobody needs to be asked.
    pub fn names(&self, rev: &str) -> bool {
        match self {
            Origin::Path { .. } => false,
            Origin::Git { want, .. } => *want == Want::Rev(rev.to_string()),
            Origin::Hub(hub) => hub.revision == rev,
            Origin::Web(web) => web.sha256.as_deref() == Some(rev),
            Origin::Oci(oci) => oci.reference.ends_with(&format!("@{rev}")),
        }
    }
}
