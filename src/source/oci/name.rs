//! `registry/repository:tag` and `registry/repository@sha256:…`.

use crate::source::http::Address;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub registry: Address,
    pub repository: String,
    /// A tag or a digest.
    pub reference: String,
}

const MAX_BYTES: usize = 255;

impl Name {
    pub fn parse(text: &str) -> Result<Name, &'static str> {
        if text.contains("://") {
            return Err("it is written without `https://`");
        }
        let (host, rest) = text.split_once('/').ok_or("it names no registry")?;
        if !(host.contains(['.', ':']) || host == "localhost") {
            return Err("it names no registry");
        }
        let (repository, reference) = match rest.split_once('@') {
            Some((repository, digest)) => (repository.split(':').next().unwrap_or(repository), digest),
            None => rest.rsplit_once(':').unwrap_or((rest, "latest")),
        };
        if repository.len() > MAX_BYTES || !repository.split('/').all(is_part) {
            return Err("a repository is made of lower-case letters, digits, `.`, `_`, `-` and slashes");
        }
        if !is_digest(reference) && !is_tag(reference) {
            return Err("behind the repository stands `:` and a tag, or `@` and a digest");
        }
        // Docker's own registry is spoken to at another name.
        let (host, repository) = match host {
            "docker.io" if !repository.contains('/') => ("registry-1.docker.io", format!("library/{repository}")),
            "docker.io" => ("registry-1.docker.io", repository.to_string()),
            host => (host, repository.to_string()),
        };
        let address = |scheme: &str| Address::parse(&format!("{scheme}://{host}")).map_err(|_| "it names no registry");
        let registry = address("http")?;
        // A registry on this machine is spoken to in the clear.
        let registry = if registry.is_local() { registry } else { address("https")? };
        Ok(Name { registry, repository, reference: reference.to_string() })
    }

    /// As Docker's configuration calls the registry.
    pub fn login_names(&self) -> Vec<String> {
        let host = self.registry.authority();
        match host.as_str() {
            "registry-1.docker.io" => vec!["https://index.docker.io/v1/".to_string(), "docker.io".to_string()],
            _ => vec![host.clone(), format!("https://{host}"), format!("http://{host}"), format!("https://{host}/v2/")],
        }
    }
}

pub fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:");
    digits.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

fn is_tag(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    !text.is_empty() && text.len() <= 128 && text.bytes().all(good) && !text.starts_with(['.', '-'])
}

fn is_part(part: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let edge = |b: Option<u8>| b.is_some_and(|b| b"._-".contains(&b));
    !part.is_empty() && part.bytes().all(good) && !edge(part.bytes().next()) && !edge(part.bytes().last()) && !part.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let name = Name::parse("ghcr.io/team/model:1.0").unwrap();
        assert_eq!(
            (name.registry.to_string().as_str(), name.repository.as_str(), name.reference.as_str()),
            ("https://ghcr.io/", "team/model", "1.0")
        );
        assert_eq!(Name::parse("localhost:5000/m").unwrap().registry.to_string(), "http://localhost:5000/");
        assert_eq!(Name::parse("localhost:5000/m").unwrap().reference, "latest");
        let digest = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(Name::parse(&format!("r.io/m:1@{digest}")).unwrap().reference, digest);
        assert_eq!(Name::parse("docker.io/alpine:3").unwrap().repository, "library/alpine");
        for bad in [
            "",
            "m",
            "team/model:1",
            "https://r.io/m",
            "r.io/",
            "r.io/M",
            "r.io/../m",
            "r.io/m:",
            "r.io/m@sha256:1",
            "r.io/m:a b",
            "r.io/a//b",
            "u@r.io/m",
        ] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }
}
