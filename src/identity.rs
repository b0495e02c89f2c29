//! Name of the user this process runs as, for "permission denied" errors.

use std::io;

use nix::unistd::{User, geteuid};

/// Returns the suffix ` by USER (uid N)` for a permission error, and an empty string for other errors.
#[must_use]
pub fn denied_user(error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return String::new();
    }
    let uid = geteuid();
    match User::from_uid(uid) {
        Ok(Some(user)) => format!(" by {} (uid {uid})", user.name),
        // In containers the user often has no entry in the user database.
        _ => format!(" by uid {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_user_of_permission_errors_only() {
        let suffix = denied_user(&io::ErrorKind::PermissionDenied.into());
        assert!(suffix.contains(&format!("uid {}", geteuid())), "{suffix}");
        assert_eq!(denied_user(&io::ErrorKind::NotFound.into()), "");
    }
}
