"""Where logs and warehouses are: local disks, HDFS, S3, Google's and Azure's storage, by one spelling of each place."""
