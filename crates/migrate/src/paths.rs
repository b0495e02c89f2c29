//! Resolves paths and programs of the old file to absolute paths. Both scanners resolved relative paths
//! against their working directory, and searched `PATH` for program names without a slash.

use std::path::{Component, Path, PathBuf};

/// Directories searched for programs. The `PATH` of this process may differ from the old service's.
const PATH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Resolves a path, which need not exist.
pub(crate) fn path(text: &str, base: &Path) -> PathBuf {
    // Keeps symbolic links, whose targets may change.
    base.join(text).components().filter(|part| *part != Component::CurDir).collect()
}

/// Resolves a program: a name without a slash is searched in `PATH`.
pub(crate) fn program(text: &str, base: &Path) -> PathBuf {
    let in_path = (!text.contains('/'))
        .then(|| PATH.iter().map(|dir| Path::new(dir).join(text)).find(|path| path.is_file()))
        .flatten();
    in_path.unwrap_or_else(|| path(text, base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_relative_paths_against_base() {
        let base = Path::new("/srv/mcs");
        for (text, absolute) in [
            ("./example.sh", "/srv/mcs/example.sh"),
            ("keys/pickle", "/srv/mcs/keys/pickle"),
            ("../pickle", "/srv/mcs/../pickle"),
            ("/etc/key", "/etc/key"),
            ("pickle", "/srv/mcs/pickle"),
        ] {
            assert_eq!(path(text, base), Path::new(absolute), "{text}");
        }
        assert_eq!(program("./sh", base), Path::new("/srv/mcs/sh"));
        assert_eq!(program("no-such-program", base), Path::new("/srv/mcs/no-such-program"));
        assert!(program("sh", base).ends_with("bin/sh") && program("sh", base).is_file());
    }
}
