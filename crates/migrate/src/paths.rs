//! Paths and programs of the old file, as absolute paths. Both scanners took relative ones from the
//! directory that they were started in, and looked for bare names of programs in `PATH`.

use std::path::{Component, Path, PathBuf};

/// Where programs are looked for: the environment is that of who types, not of the old service.
const PATH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A file or directory; nothing needs to be there.
pub(super) fn path(text: &str, base: &Path) -> PathBuf {
    // Not resolved further: a link may be there to be changed.
    base.join(text).components().filter(|part| *part != Component::CurDir).collect()
}

/// A program: a bare name is the first of that name in `PATH`, if there is one.
pub(super) fn program(text: &str, base: &Path) -> PathBuf {
    let in_path = (!text.contains('/'))
        .then(|| PATH.iter().map(|folder| Path::new(folder).join(text)).find(|it| it.is_file()))
        .flatten();
    in_path.unwrap_or_else(|| path(text, base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_start_where_the_scanner_was_started() {
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
