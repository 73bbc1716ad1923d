#!/bin/sh
# Runs once in a new root file system, as a host without network: users, keys, an empty
# accounting database and a container image, so that starting a box has little left to do.
set -eux

for user in alice:2001 bob:2002; do
    useradd --create-home --shell /bin/bash --uid "${user#*:}" "${user%:*}"
done
chmod 711 /root # what a box binds from the machine may lie below it
mkdir -p /etc/slurm /scratch /var/log/box /opt/images
chmod 1777 /scratch /var/log/box

dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none
chown munge:munge /etc/munge/munge.key /run/munge
chmod 400 /etc/munge/munge.key
ssh-keygen -A
mkdir -p /var/spool/slurmctld /var/spool/slurmd
dd if=/dev/urandom of=/etc/slurm/jwt.key bs=32 count=1 status=none
chown slurm:slurm /var/spool/slurmctld /etc/slurm/jwt.key
chmod 600 /etc/slurm/jwt.key

# The database that slurmdbd wants, with its tables made, which takes seconds. So does the
# certificate that MariaDB else makes anew at each start.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
    -subj /CN=control -keyout /etc/mysql/box.key -out /etc/mysql/box.crt
chown mysql /etc/mysql/box.key
cat >/etc/mysql/mariadb.conf.d/99-box.cnf <<'END'
[mariadbd]
datadir = /var/lib/accounting
skip-networking
ssl_cert = /etc/mysql/box.crt
ssl_key = /etc/mysql/box.key
skip-log-bin
innodb_snapshot_isolation = OFF
innodb_log_file_size = 8M
innodb_buffer_pool_size = 64M
innodb_flush_log_at_trx_commit = 0
innodb_doublewrite = OFF
END
mariadb-install-db --user=mysql --skip-test-db >/dev/null
chown mysql:mysql /run/mariadbd
until_true() { # COMMAND
    timeout 30 sh -c "until $1 >/dev/null 2>&1; do sleep 0.1; done"
}
echo "198.18.0.1 control" >>/etc/hosts
munged --force
mariadbd --user=mysql &
until_true "mariadb-admin ping"
mariadb -e "CREATE DATABASE slurm_acct_db;
            CREATE USER slurm@localhost IDENTIFIED VIA unix_socket;
            GRANT ALL ON slurm_acct_db.* TO slurm@localhost;"
cat >/etc/slurm/slurmdbd.conf <<'END'
AuthType=auth/munge
DbdHost=control
SlurmUser=slurm
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
PidFile=/run/slurm/slurmdbd.pid
END
printf '%s\n' ClusterName=box SlurmctldHost=control \
    AccountingStorageType=accounting_storage/slurmdbd AccountingStorageHost=control \
    >/etc/slurm/slurm.conf
chown slurm:slurm /etc/slurm/slurmdbd.conf /run/slurm
chmod 600 /etc/slurm/slurmdbd.conf
runuser -u slurm -- slurmdbd -D &
until_true "timeout 2 sacctmgr -n show cluster"
sacctmgr -i add cluster box
pkill -x slurmdbd
mariadb-admin shutdown
until_true "! pgrep -x 'mariadbd|slurmdbd'"
rm -f /etc/slurm/slurm.conf /etc/slurm/slurmdbd.conf /var/log/box/*

# A container image, of this very file system without what only its services need.
mkdir /tmp/image
rsync -ax --exclude=/dev/* --exclude=/proc/* --exclude=/sys/* --exclude=/run/* --exclude=/tmp/* \
    --exclude=/var --exclude=/home/* --exclude=/root --exclude=/boot --exclude=/opt/* \
    --exclude=/etc/munge --exclude=/etc/slurm --exclude=/etc/ssh \
    --exclude=/usr/share/doc --exclude=/usr/share/man --exclude=/usr/share/locale \
    --exclude=/usr/share/mariadb --exclude=/usr/share/mysql --exclude='/usr/bin/maria*' \
    --exclude='/usr/bin/my*' --exclude='/usr/bin/aria*' --exclude=/usr/sbin/mariadbd \
    --exclude=/usr/lib/mysql --exclude='slurm*' --exclude=/usr/libexec/apptainer \
    --exclude=/usr/bin/apptainer --exclude=/usr/share/perl --exclude=/usr/lib/x86_64-linux-gnu/perl \
    --exclude='libLLVM*' --exclude='libgallium*' --exclude=/finish.sh / /tmp/image/
mkdir -p /tmp/image/var/tmp /tmp/image/root
rm /tmp/image/etc/shadow
apptainer build --mksquashfs-args '-comp zstd -Xcompression-level 1' \
    /opt/images/python.sif /tmp/image
chmod 644 /opt/images/python.sif
rm -rf /tmp/image /root/.apptainer
