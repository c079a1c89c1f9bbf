//! Files in which the user has noted credentials for other tools. One that is not there holds none; one that cannot be read is an error, not silence.

use std::io::{ErrorKind, Read};
use std::path::Path;

use super::http::HttpError;
use crate::base::files;

/// Longer than any list of passwords.
const MAX_BYTES: u64 = 1 << 20;

pub fn read(path: &Path) -> Result<Option<String>, HttpError> {
    let unusable = |why: String| HttpError::Credentials { file: path.display().to_string(), why };
    match std::fs::metadata(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(unusable(error.to_string())),
        Ok(found) if !found.is_file() => return Err(unusable("it is not a file".to_string())),
        Ok(_) => {}
    }
    let mut text = String::new();
    let read = files::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    match read {
        // The error of the standard library shows no content.
        Err(error) => Err(unusable(error.to_string())),
        Ok(length) if length as u64 > MAX_BYTES => Err(unusable("it is longer than 1 MiB".to_string())),
        Ok(_) => Ok(Some(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told() {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("noted");
        assert_eq!(read(&path).unwrap(), None);
        assert_eq!(read(&path.join("below")).unwrap(), None);
        std::fs::write(&path, "secret").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("secret"));
        assert!(read(space.path()).is_err());
        std::fs::write(&path, b"secret\xff").unwrap();
        assert!(!read(&path).unwrap_err().to_string().contains("secret"));
        std::fs::write(&path, "x".repeat(2 << 20)).unwrap();
        assert!(read(&path).is_err());
        assert!(read(Path::new("/dev/zero")).is_err());
    }
}
