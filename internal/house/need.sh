# Sourced by the scripts beside it: finds what a run needs besides Go, or installs it.
#
#   need COMMAND "APT PACKAGES" "BREW PACKAGES" "WHAT IS NOT RUN WITHOUT IT"
#
# What is missing is announced and installed: with apt-get as root or through sudo, or with brew.
# What can't be had is kept for not_run_list; with CI=true it ends the run instead.

not_run=""   # one line each
installed="" # set once something was

ci() { [ "${CI:-}" = true ]; }

# have COMMAND asks the function works_COMMAND, if there is one, else the PATH.
have() {
	if declare -F "works_$1" >/dev/null; then "works_$1"; else command -v "$1" >/dev/null 2>&1; fi
}

# The race detector needs a C compiler with its headers, except on macOS.
works_cc() {
	[ "$(go env GOOS)" = darwin ] ||
		printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | $(go env CC) -x c -o /dev/null - >/dev/null 2>&1
}

# The JavaScript packages need Node.js 20; npm comes with brew's, and apart from Debian's.
works_node() {
	command -v npm >/dev/null 2>&1 &&
		node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' >/dev/null 2>&1
}

need() {
	have "$1" && return
	if [ "$(uname)" = Darwin ]; then
		install_brew "$3" || true
	else
		install_apt "$2" || true
	fi
	if have "$1"; then
		installed=yes
	elif ci; then
		echo "$1 is missing and could not be installed; without it: no $4" >&2
		exit 1
	else
		add_not_run "$4 ($1 is missing)"
	fi
}

install_apt() {
	local packages=$1 p sudo="" options=()
	have apt-get || return 1
	if [ "$(id -u)" != 0 ]; then
		have sudo && { [ -t 0 ] || sudo -n true 2>/dev/null; } || return 1
		sudo=sudo
	fi
	# A package such as redis-server brings a service, which Debian enables and starts at once. Its
	# unit and init script stay in the package, so that there is nothing to enable or start; only
	# those of the packages asked for, so that an upgraded dependency keeps its own.
	for p in $packages; do
		options+=(-o "Dpkg::Options::=--path-exclude=*/systemd/system/$p*" -o "Dpkg::Options::=--path-exclude=/etc/init.d/$p*")
	done
	echo "installing with apt-get: $packages (no service is started or enabled)"
	$sudo apt-get update -qq &&
		$sudo env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
			apt-get install -y -qq --no-install-recommends "${options[@]}" $packages </dev/null
}

# brew starts nothing unless it is told to by `brew services`.
install_brew() {
	[ -n "$1" ] && have brew || return 1
	echo "installing with brew: $1"
	HOMEBREW_NO_AUTO_UPDATE=1 brew install $1 </dev/null
}

add_not_run() { not_run="$not_run  $1"$'\n'; }

not_run_list() {
	[ -z "$not_run" ] || printf 'not run:\n%s' "$not_run"
}
