//! Why a kernel refuses a sandbox, and what its owner can do.

use std::fs;

/// Kernel settings that forbid unprivileged user namespaces: where, which value, and what to say.
const SETTINGS: [(&str, &str, &str); 3] = [
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "unprivileged user namespaces are switched off; `sysctl kernel.unprivileged_userns_clone=1` (as root) allows them",
    ),
    (
        "/proc/sys/user/max_user_namespaces",
        "0",
        "the number of user namespaces is limited to none; `sysctl user.max_user_namespaces=15000` (as root) allows them",
    ),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor keeps unconfined programs from user namespaces; `sysctl kernel.apparmor_restrict_unprivileged_userns=0` (as root) or an AppArmor profile with `userns,` for slmops allows them",
    ),
];

/// What process 1 does last. Kernels that give everything else may lack this.
pub const FILTERING: &str = "filter system calls";

/// The help for a failure to make a part of the sandbox.
pub fn help(doing: &str) -> String {
    if doing == FILTERING {
        return "an `exec` step needs a kernel with filters of system calls (CONFIG_SECCOMP_FILTER), on x86_64, aarch64 or riscv64"
            .to_string();
    }
    help_from(|path| fs::read_to_string(path).ok())
}

fn help_from(read: impl Fn(&str) -> Option<String>) -> String {
    let forbidden = SETTINGS.iter().find(|(path, value, _)| read(path).is_some_and(|text| text.trim() == *value));
    let text = match forbidden {
        Some((.., text)) => text,
        None => {
            "an `exec` step needs Linux with user, mount, process and network namespaces (CONFIG_USER_NS); in a container they must be \
             allowed from outside, for example with `--security-opt seccomp=unconfined --security-opt systempaths=unconfined`"
        }
    };
    text.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_in_the_way_is_named() {
        let only = |wanted: &'static str, value: &'static str| move |path: &str| (path == wanted).then(|| format!("{value}\n"));
        assert!(help_from(only("/proc/sys/user/max_user_namespaces", "0")).contains("user.max_user_namespaces"));
        assert!(help_from(only("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1")).contains("AppArmor"));
        assert!(help_from(only("/proc/sys/kernel/unprivileged_userns_clone", "1")).contains("CONFIG_USER_NS"));
        assert!(help_from(|_| None).contains("container"));
    }
}
