# shellcheck shell=bash disable=SC2034
# How to call cargo for the two targets and for the host. Sourced after common.sh.
#
#   bare_cargo COMMAND ...   for the hypervisor and the payloads ($BARE_TARGET)
#   dom0_cargo COMMAND ...   for the dom0 tools ($DOM0_TARGET), static
#   cargo COMMAND ...        for the host
#
# Two ways lead there. `rustup`: a toolchain with both targets added. `debian`: Debian's packaged Rust, which has no
# bare-metal library and so builds it from its own source. NACELLE_TOOLCHAIN=rustup|debian chooses; without it, rustup
# where both targets are there, else Debian's where it is Debian 12.

BARE_TARGET=aarch64-unknown-none-softfloat
RUST_VERSION=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")

rustup_has_targets() {
    local targets
    have rustup || return 1
    targets=$(cd "$ROOT" && rustup target list --installed 2>/dev/null) || return 1
    grep -qx "$BARE_TARGET" <<<"$targets" && grep -qx aarch64-unknown-linux-musl <<<"$targets"
}

toolchain_kind() {
    if [[ -n ${NACELLE_TOOLCHAIN:-} ]]; then echo "$NACELLE_TOOLCHAIN"
    elif rustup_has_targets; then echo rustup
    elif on_debian_12; then echo debian
    else echo rustup
    fi
}

TOOLCHAIN=${TOOLCHAIN:-$(toolchain_kind)}
case $TOOLCHAIN in
rustup)
    DOM0_TARGET=aarch64-unknown-linux-musl
    RUSTC_USED=rustc
    bare_cargo() { cargo "$1" --target "$BARE_TARGET" "${@:2}"; }
    dom0_cargo() { cargo "$1" --target "$DOM0_TARGET" "${@:2}"; }
    ;;
debian)
    DOM0_TARGET=aarch64-unknown-linux-gnu
    RUSTC_USED=/usr/bin/rustc
    debian_cargo() {
        PATH=/usr/bin:$PATH CARGO_FUTURE_INCOMPAT_REPORT_FREQUENCY=never RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc \
            CARGO_TARGET_AARCH64_UNKNOWN_NONE_SOFTFLOAT_LINKER=ld.lld \
            CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
            /usr/bin/cargo "$@"
    }
    bare_cargo() {
        debian_cargo "$1" --target "$BARE_TARGET" -Zbuild-std=core,alloc,compiler_builtins \
            -Zbuild-std-features=compiler-builtins-mem "${@:2}"
    }
    dom0_cargo() { debian_cargo "$1" --target "$DOM0_TARGET" "${@:2}"; }
    ;;
*) die "NACELLE_TOOLCHAIN must be rustup or debian, not '$TOOLCHAIN'" ;;
esac

OBJCOPY=
for OBJCOPY in aarch64-linux-gnu-objcopy llvm-objcopy rust-objcopy; do have "$OBJCOPY" && break; done
NM=${OBJCOPY%objcopy}nm

# The pin that both ways allow: not older than Cargo.toml's rust-version.
assert_rust_version() {
    local version
    version=$("$RUSTC_USED" --version | cut -d' ' -f2)
    version_at_least "$version" "$RUST_VERSION" ||
        die "Rust $RUST_VERSION or later is needed, $RUSTC_USED is $version"
}
