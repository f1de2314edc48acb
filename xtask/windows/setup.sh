#!/usr/bin/env bash
# usage: setup.sh FOLDER
#
# Makes FOLDER a compiler for x86_64-pc-windows-gnu out of Debian's packages and crates.io: rustc-web (the newest rustc
# Debian has, kept up for its browsers), mingw's gcc, and the standard library built once from rust-web-src.
# Nothing is installed: the packages are unpacked beside the system, so neither root nor a change of PATH is needed,
# and rustup's toolchain stays the only `rustc` on the machine. Run it again at any time: it does nothing until Debian
# has a newer rustc-web. FOLDER/ready says what is inside; FOLDER/bin/wincargo is cargo for Windows.
set -euo pipefail

folder=${1:?usage: setup.sh FOLDER}
target=x86_64-pc-windows-gnu
mingw=x86_64-w64-mingw32
cargo=${CARGO:-cargo}
layout=1 # of FOLDER, also in windows.rs: a change here makes older folders be built anew

say() { printf 'windows setup: [%3ds] %s\n' "$SECONDS" "$*"; }
fail() { printf 'windows setup: %s\n' "$*" >&2; exit 1; }

[ "$(uname -m)" = x86_64 ] || fail "works on x86_64 only, this is $(uname -m)"
for tool in apt-get apt-cache dpkg flock "$cargo"; do
    command -v "$tool" >/dev/null || fail "needs $tool (Debian 12 with rustup's cargo is what it is made for)"
done

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
exec 9>"$folder.lock"
flock -n 9 || { say "another set-up is at work on $folder: waiting for it"; flock 9; }
if [ -n "$(ls -A "$folder")" ] && [ ! -e "$folder/.easymesh" ]; then
    fail "$folder is not empty and was not made by this script: name another folder in EASYMESH_WINRUST"
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# apt with lists and downloads of its own, so that it needs neither root nor the system's lock.
mkdir -p "$scratch"/{lists,archives}/partial
options=(-o "Dir::State::Lists=$scratch/lists" -o "Dir::Cache=$scratch" -o Debug::NoLocking=true -o APT::Sandbox::User=)
say "reading Debian's package lists"
apt-get "${options[@]}" -qq update
version=$(LC_ALL=C apt-cache "${options[@]}" policy rustc-web | awk '$1 == "Candidate:" { print $2 }')
case $version in
    ''|'(none)') fail "Debian's lists have no package rustc-web: are main and security in /etc/apt/sources.list?" ;;
esac
contents="layout $layout, rustc-web $version"
if [ "$(cat "$folder/ready" 2>/dev/null)" = "$contents" ]; then
    say "$folder is up to date ($contents)"
    exit 0
fi

say "downloading rustc-web $version and mingw"
find "$folder" -mindepth 1 -delete
touch "$folder/.easymesh"
# What the machine already has is left out by apt; what these packages need beyond that comes along.
LC_ALL=C apt-get "${options[@]}" -qq -y --no-install-recommends --download-only install \
    "rustc-web=$version" "rust-web-src=$version" "rust-web-clippy=$version" gcc-mingw-w64-x86-64-posix >/dev/null
say "unpacking $(du -sh "$scratch/archives" | cut -f1) into $folder"
for package in "$scratch"/archives/*.deb; do
    case $package in
        # Most of the source package is the compiler itself.
        */rust-web-src_*) dpkg --fsys-tarfile "$package" | tar -x -C "$folder" --wildcards \
            './usr/lib/rustlib/src*' './usr/src/rustc-*/library/*' ;;
        *) dpkg -x "$package" "$folder" ;;
    esac
    rm "$package"
done
rm -rf "$folder"/usr/share/{doc,man,locale}

# The unpacked programs find their own shared libraries by these wrappers, and nobody else does.
mkdir "$folder/bin"
wrap() { # NAME PROGRAM
    cat > "$folder/bin/$1" <<WRAPPER
#!/bin/sh
LD_LIBRARY_PATH=$folder/usr/lib/x86_64-linux-gnu\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH} exec $2 "\$@"
WRAPPER
    chmod 755 "$folder/bin/$1"
}
for program in rustc rustdoc clippy-driver; do wrap $program "$folder/usr/bin/$program"; done
# mingw may also be installed; then apt has left it out.
beside() { if [ -e "$folder/usr/bin/$1" ]; then echo "$folder/usr/bin/$1"; else command -v "$1"; fi; }
wrap $mingw-gcc "$(beside $mingw-gcc-posix)"
for program in ar as dlltool ld nm objcopy ranlib strip windres; do
    ln -s "$(beside $mingw-$program)" "$folder/bin/$mingw-$program"
done
cat > "$folder/bin/wincargo" <<WRAPPER
#!/bin/sh
# cargo, for $target. The target folder is its own: two compilers in one would evict each other's work.
PATH=$folder/bin:\$PATH RUSTC=$folder/bin/rustc RUSTDOC=$folder/bin/rustdoc
CARGO_BUILD_TARGET=$target CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=$mingw-gcc
CARGO_TARGET_DIR=\${CARGO_TARGET_DIR:-target}/win AWS_LC_SYS_PREBUILT_NASM=1
export PATH RUSTC RUSTDOC CARGO_BUILD_TARGET CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER CARGO_TARGET_DIR AWS_LC_SYS_PREBUILT_NASM
if [ "\$1" = clippy ]; then
    shift
    # Here only build scripts and macros become code, and they run once: optimising them would take longer than they do.
    RUSTC_WORKSPACE_WRAPPER=$folder/bin/clippy-driver exec \${CARGO:-cargo} check --config 'profile.dev.package."*".opt-level=0' "\$@"
fi
exec \${CARGO:-cargo} "\$@"
WRAPPER
chmod 755 "$folder/bin/wincargo"

say "building the standard library"
# As rustc's own build does: panic_abort alone is compiled for panic=abort, and bitcode is kept for programs with LTO.
cat > "$scratch/rustc" <<WRAPPER
#!/bin/sh
case " \$* " in *' --crate-name panic_abort '*) set -- "\$@" -Cpanic=abort ;; esac
exec $folder/bin/rustc "\$@"
WRAPPER
chmod 755 "$scratch/rustc"
mkdir -p "$scratch/empty/src"
touch "$scratch/empty/src/lib.rs"
cat > "$scratch/empty/Cargo.toml" <<'MANIFEST'
[package]
name = "empty"
edition = "2024"
[workspace]
MANIFEST
(
    cd "$scratch/empty"
    env -u CARGO_TARGET_DIR -u CARGO_ENCODED_RUSTFLAGS -u RUSTC_WRAPPER -u RUSTC_WORKSPACE_WRAPPER \
        PATH="$folder/bin:$PATH" RUSTC="$scratch/rustc" RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Cembed-bitcode=yes \
        "$cargo" build --quiet --release --target $target \
        -Zbuild-std=std,panic_abort,panic_unwind,proc_macro,test \
        -Zbuild-std-features=panic-unwind,backtrace,compiler-builtins-mem
)
library="$folder/usr/lib/rustlib/$target/lib"
mkdir -p "$library"
find "$scratch/empty/target/$target/release/deps" -name 'lib*.rlib' ! -name 'libempty-*' -exec cp -t "$library" {} +

say "trying it on a small program"
mkdir -p "$scratch/try/src"
sed 's/empty/try/' "$scratch/empty/Cargo.toml" > "$scratch/try/Cargo.toml"
cat > "$scratch/try/src/main.rs" <<'PROGRAM'
fn main() {
    println!("{:?}", std::net::UdpSocket::bind("[::1]:0"));
}
PROGRAM
(cd "$scratch/try" && CARGO_TARGET_DIR="$scratch/try/target" "$folder/bin/wincargo" build --quiet --release)
[ "$(head -c 2 "$scratch/try/target/win/$target/release/try.exe")" = MZ ] || fail "the compiler made no Windows program"

echo "$contents" > "$folder/ready"
say "ready: $folder ($contents), $(du -sh "$folder" | cut -f1)"
