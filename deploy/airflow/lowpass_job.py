"""An Airflow DAG that runs `lowpass job run` each night: copy it into the DAGs folder, and set the variables below.

Airflow only starts the job and looks at how it ended. The job knows what it has done: an attempt that was cut off (exit
code 1, a lost worker) is tried again and goes on where it stopped; a spec that is wrong (2) and a version that the gate
held (3) would end alike again, so these fail at once.

On Kubernetes, give the same words to a KubernetesPodOperator, with the jobs' directory and the repository on a volume
that outlives the pod:

    KubernetesPodOperator(
        task_id="run", image="lowpass-job", arguments=["job", "run", SPEC], volumes=[…], volume_mounts=[…],
        base_container_status_polling_interval=10, skip_on_exit_code=None, retries=2,
    )
"""

from __future__ import annotations

import os
import subprocess
from datetime import datetime, timedelta

from airflow.decorators import dag, task
from airflow.exceptions import AirflowException, AirflowFailException

SPEC = os.environ.get("LOWPASS_JOB", "/etc/lowpass/job.toml")
PROGRAM = os.environ.get("LOWPASS", "lowpass")
ENDS_ALIKE = {2: "the spec or its data are wrong", 3: "the gate held the new version: 'lowpass job show' says why"}


@dag(
    schedule="0 3 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,  # the job has a lock of its own; a second run would fail, not wait
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
    tags=["lowpass"],
)
def lowpass_job() -> None:
    """Prepare, train, distill, export, and publish what passes the gate."""

    @task(execution_timeout=timedelta(hours=12))
    def run() -> None:
        code = subprocess.run([PROGRAM, "job", "run", SPEC], check=False).returncode
        if code in ENDS_ALIKE:
            raise AirflowFailException(f"exit code {code}: {ENDS_ALIKE[code]}")
        if code:
            raise AirflowException(f"exit code {code}: the next attempt goes on where this one stopped")

    run()


lowpass_job()
