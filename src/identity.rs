//! As whom this process runs: the question that "Permission denied" leaves open. Knows no file in particular.

use std::io;

use nix::unistd::{User, geteuid};

/// ` by nobody (uid 65534)` where this user may not do it; nothing where another reason stands in the way.
#[must_use]
pub fn by(error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return String::new();
    }
    let uid = geteuid();
    match User::from_uid(uid) {
        Ok(Some(user)) => format!(" by {} (uid {uid})", user.name),
        // Containers run as users whom no file names.
        _ => format!(" by uid {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_named_where_that_is_the_question() {
        let told = by(&io::ErrorKind::PermissionDenied.into());
        assert!(told.contains(&format!("uid {}", geteuid())), "{told}");
        assert_eq!(by(&io::ErrorKind::NotFound.into()), "");
    }
}
